"""Calls one unary method as it is told to, line by line: `python -m bench.standing_caller`.

A process that stays, so that short measurements can take turns on connections that are open. What
it is told: `{"calls": 200}`, as fast as `at_once` callers can; `{"rate": 500, "seconds": 2}`, at
that rate whatever the answers do. It answers with the seconds that each call took; of a rate, from
when it was due, so that what waits for a slow answer counts too.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.caller import Unary, channel_to


class Standing:
    """The calls of one connection."""

    def __init__(self, method: Unary, requests: list[bytes], *, at_once: int) -> None:
        """`requests` are made in turn."""
        self._method = method
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self._at_once = at_once

    async def as_fast(self, calls: int) -> list[float]:
        """Makes so many calls, `at_once` under way."""
        took: list[float] = []

        async def some() -> None:
            for _ in range(calls // self._at_once):
                await self._call(time.perf_counter(), took)

        async with asyncio.TaskGroup() as callers:
            for number in range(self._at_once):
                callers.create_task(some(), name=f"caller {number}")
        return took

    async def at_rate(self, rate: float, seconds: float) -> list[float]:
        """Makes so many calls a second."""
        took: list[float] = []
        began = time.perf_counter()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                await asyncio.sleep(due - time.perf_counter())
                calls.create_task(self._call(due, took), name=f"call {number}")
        return took

    async def _call(self, due: float, took: list[float]) -> None:
        await self._method(next(self._requests))
        took.append(time.perf_counter() - due)


async def serve(arguments: argparse.Namespace) -> None:
    """Does as it is told until its input ends."""
    requests = [bytes.fromhex(line) for line in arguments.requests.read_text().split()]
    async with channel_to(arguments.port, arguments.certificates) as channel:
        method: Unary = channel.unary_unary(arguments.method)
        standing = Standing(method, requests, at_once=arguments.at_once)
        while line := await asyncio.to_thread(sys.stdin.readline):
            told = json.loads(line)
            took = (
                await standing.as_fast(told["calls"])
                if "calls" in told
                else await standing.at_rate(told["rate"], told["seconds"])
            )
            sys.stdout.write(json.dumps(took) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Calls as the arguments and the input say."""
    parser = argparse.ArgumentParser(prog="python -m bench.standing_caller", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("method")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--certificates", type=Path)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
