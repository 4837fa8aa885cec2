"""Valkey killed, flushed, silent, slow or cut; brokers replaced one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import redis.asyncio

from chaos.cases import Case
from chaos.outages import OUTAGE_SECONDS, Outage, ready, soon
from chaos.stage import Stage

_FLUSHES: Final = 20
"""While refreshes are under way: between any two of their steps."""

_SLOW_SECONDS: Final = 0.4
"""Each way: longer than the broker waits for Valkey."""


_REPLACING_SECONDS: Final = 5.0
"""In which tenants become due: about what three brokers take to start."""


async def killed(stage: Stage, _cases: Sequence[Case]) -> None:
    """Kills it, and starts it again."""
    await soon(stage)
    await stage.valkey.kill()
    await asyncio.sleep(OUTAGE_SECONDS)
    await stage.valkey.start()


async def flushed(stage: Stage, _cases: Sequence[Case]) -> None:
    """Empties it again and again."""
    async with redis.asyncio.from_url(stage.valkey.url) as client:
        for _ in range(_FLUSHES):
            await client.flushall()
            await asyncio.sleep(OUTAGE_SECONDS / _FLUSHES)


async def silent(stage: Stage, _cases: Sequence[Case]) -> None:
    """Lets it answer nobody, and everybody late."""
    await soon(stage)
    stage.way.valkey.hold()
    await asyncio.sleep(OUTAGE_SECONDS)
    stage.way.valkey.heal()


async def slow(stage: Stage, _cases: Sequence[Case]) -> None:
    """Lets every answer come too late."""
    stage.way.valkey.delay(_SLOW_SECONDS)
    await asyncio.sleep(OUTAGE_SECONDS)
    stage.way.valkey.heal()


async def cut(stage: Stage, _cases: Sequence[Case]) -> None:
    """Ends its connections, half of them and all of them, and goes on."""
    for _ in range(3):
        await soon(stage)
        stage.way.valkey.half_close("client")
        await soon(stage)
        stage.way.valkey.cut()


async def replaced(stage: Stage, cases: Sequence[Case]) -> None:
    """Replaces every broker with SIGTERM, as a deployment does; each must end in order."""
    for old in list(stage.replicas):
        new = stage.brokers.launch(**stage.way.settings)
        await ready(stage, [new])
        stage.replicas = [each for each in stage.replicas if each is not old] + [new]
        old.terminate()
        if await old.ended():
            cases[0].notes.append(f"{old.name} did not end in order")


OTHER_OUTAGES: Final = (
    Outage(fault="Valkey killed", act=killed),
    Outage(fault="Valkey flushed", act=flushed),
    Outage(fault="Valkey silent", act=silent),
    Outage(fault="Valkey slow", act=slow),
    Outage(fault="Valkey cut", act=cut),
    # Some refreshes are always on the wire.
    Outage(
        fault="three brokers replaced",
        act=replaced,
        tenants=40,
        seconds=_REPLACING_SECONDS,
        pleo_seconds=0.8,
    ),
)
