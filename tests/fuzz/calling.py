"""Sends made requests to a broker over real channels, many at once, and keeps what is wrong."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, TypeAlias

import grpc.aio

from fuzz.judging import Answer, answer_of, faults
from fuzz.making import Maker, Request

PATIENCE_SECONDS: Final = 60.0
"""An import waits for its turn at Pleo, with all the others of the run before it; a call that takes
longer than this hangs."""

WATCH_SECONDS: Final = 0.5
"""A watch stays open until its caller goes, which is what a good one is to do; a bad one ends at
once."""

_NO_TIME_SECONDS: Final = 0.002
_AT_ONCE: Final = 16
_ODD: Final = 0.2
"""How much of it has odd metadata; half as much is given next to no time."""

_PROGRESS_EVERY: Final = 1000

_OUR_OWN: Final = "Internal error from Core"
"""What the channel itself says where a stream ended while it was still writing (grpcio 1.85)."""

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_METADATA: Final[tuple[Metadata, ...]] = (
    (),
    (("authorization", "Bearer x"), ("authorization", "Bearer y")),
    (("authorization", "Basic eDp5"),),
    tuple(("authorization", f"Bearer {number}") for number in range(100)),
    (("x-long", "x" * 6000),),
    (("x-longer", "x" * 20_000),),
    (("odd-bin", bytes(range(256))),),
    (("grpc-trace-bin", b"\xff\x00"), ("traceparent", "00-zz-zz-zz")),
    (("grpc-previous-rpc-attempts", "99999999999"), ("content-language", " !~ ")),
)


@dataclass(slots=True)
class Run:
    """What was tried, and what was found."""

    channels: Sequence[grpc.aio.Channel]
    dice: Random
    tally: Counter[str] = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)

    async def fuzz(self, examples: int) -> None:
        """Tries so many requests."""
        maker, numbers = Maker(self.dice), iter(range(1, examples + 1))
        async with asyncio.TaskGroup() as tasks:
            for number in range(_AT_ONCE):
                tasks.create_task(self._work(maker, numbers), name=f"caller {number}")

    async def _work(self, maker: Maker, numbers: Iterator[int]) -> None:
        for number in numbers:  # shared: whoever is free takes the next one
            await self.attempt(maker.request(), is_odd=True)
            if number % _PROGRESS_EVERY == 0:
                sys.stderr.write(f"  {number} calls, {len(self.found)} faults\n")

    async def attempt(self, request: Request, *, is_odd: bool = False) -> None:
        """Tries one; `is_odd`: also its metadata and deadline may be."""
        metadata = self.dice.choice(_METADATA) if is_odd and self.dice.random() < _ODD else ()
        is_given_up = is_odd and self.dice.random() < _ODD / 2
        answer = await self._answer(request, metadata, is_given_up=is_given_up)
        self.tally[answer.code] += 1
        self.found += [f"{fault} <- {request}" for fault in faults(request, answer)]

    async def _answer(self, request: Request, metadata: Metadata, *, is_given_up: bool) -> Answer:
        channel = self.dice.choice(self.channels)
        seconds = PATIENCE_SECONDS
        if is_given_up:
            seconds = _NO_TIME_SECONDS
        elif request.method.client_streaming:
            seconds, is_given_up = WATCH_SECONDS, True
        try:
            responses = await _responses(channel, request, metadata, seconds)
        except grpc.aio.AioRpcError as error:
            if error.details() == _OUR_OWN:
                return Answer(code="CANCELLED", is_given_up=is_given_up)
            return answer_of(error, is_given_up=is_given_up)
        return Answer(code="OK", responses=tuple(responses))


async def _responses(
    channel: grpc.aio.Channel, request: Request, metadata: Metadata, seconds: float
) -> list[bytes]:
    """Calls with bytes as they are, whatever kind of call it is."""
    sent: list[bytes] = [request.encoded]
    if request.method.client_streaming:
        streams: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        streams = channel.stream_stream(request.path)
        return [each async for each in streams(iter(sent), timeout=seconds, metadata=metadata)]
    if request.method.server_streaming:
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
        stream = channel.unary_stream(request.path)
        return [each async for each in stream(sent[0], timeout=seconds, metadata=metadata)]
    unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    unary = channel.unary_unary(request.path)
    return [await unary(sent[0], timeout=seconds, metadata=metadata)]
