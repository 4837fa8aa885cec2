"""What a token in memory weighs beyond its own bytes."""

from __future__ import annotations

import asyncio
import gc
import secrets
import tracemalloc
from dataclasses import replace
from datetime import timedelta
from typing import Final

from bench.figures import Figure, Pair, Step
from broker.domain.grant import TokenPair
from broker.domain.secret import AccessToken, Secret
from broker.ports import Snapshot
from broker.rpc.messages import lasting_part
from broker.service.memory import Memory
from broker.service.rows import Reading
from support.grants import THE_NOW, some_grant

TOKEN_BYTES: Final = 1000
"""Of an access token: a signed one with some claims."""

_KIBIBYTE: Final = 1024


async def kept_tokens(pairs: int, step: Step, *, copies: int) -> Figure:
    """Measures copies in memory, each of a grant as it is read, with strings of its own."""
    found = []
    for _ in range(pairs):
        value = _beyond_tokens(copies)
        found.append(Pair(value=value, baseline=_KIBIBYTE))
        step()
    return Figure(
        name="memory of a cached token, beyond its bytes",
        baseline="1 KiB",
        unit="bytes",
        aim=1.0,
        is_floor=False,
        pairs=tuple(found),
        note=f"{copies} copies; at most `BROKER_MAX_CACHED_TOKENS` are kept",
    )


def _beyond_tokens(copies: int) -> float:
    memory = Memory(most_copies=copies)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(copies):
            reading = _reading(number)
            memory.keep(reading)
            copy = memory.at_hand(reading.grant.tenant)
            assert copy is not None
            # As of one that was asked for.
            copy.written = lasting_part(copy.served())
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return size / copies - TOKEN_BYTES


def _reading(number: int) -> Reading:
    grant = some_grant(
        tenant=f"customer-{number}",
        expires_at=THE_NOW + timedelta(hours=1),
        renew_at=THE_NOW + timedelta(minutes=59),
        scopes=(f"scope-{number}:read", f"scope-{number}:write"),
        subject=f"company-{number}",
    )
    pair = TokenPair(
        access_token=AccessToken(Secret(secrets.token_hex(TOKEN_BYTES // 2))),
        refresh_token=None,
        generation=grant.generation,
    )
    at = asyncio.get_running_loop().time() + number / 1e9
    read_at = THE_NOW + timedelta(microseconds=number)
    snapshot = Snapshot(grant=replace(grant, pair=pair), version=number + 1, read_at=read_at)
    return Reading(snapshot=snapshot, asked_at=at, answered_at=at)
