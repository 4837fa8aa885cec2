"""What the client library costs a service: a kept token, and the header on each request.

A kept token is compared with a look-up in a dict, PleoAuth with the same httpx client whose header
is fixed. Nothing is sent anywhere: httpx's requests are answered within this process.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Final

import httpx

from bench.figures import Figure, Pair, Step
from broker.client import PleoAuth, TokenClient
from support.fake_calls import FakeCalls

API: Final = "https://external.pleo.test"

_RUNS: Final = 10
"""Of what takes nanoseconds, the quickest of which counts: no other can be told from the machine's
doing."""

_NANO: Final = 1e9

_MICRO: Final = 1e6


async def kept_token(pairs: int, step: Step, *, gets: int) -> Figure:
    """Measures `await client.get(tenant)` within the lease."""
    found = []
    known = {f"tenant-{number}": object() for number in range(1000)}
    async with TokenClient("localhost:1", calls=FakeCalls()) as client:
        for tenant in known:
            await client.get(tenant)
        for number in range(pairs + 1):
            if number % 2:
                value, baseline = await _gets(client, gets), _look_ups(known, gets)
            else:
                baseline, value = _look_ups(known, gets), await _gets(client, gets)
            if number:
                found.append(Pair(value=value, baseline=baseline))
                step()
    return Figure(
        name="a kept token: await client.get(tenant)",
        baseline="a look-up in a dict",
        unit="nanoseconds",
        aim=10.0,
        is_floor=False,
        pairs=tuple(found),
        note=_note(found, "ns"),
    )


async def header(pairs: int, step: Step, *, requests: int) -> Figure:
    """Measures a request of httpx with PleoAuth."""
    found = []
    answered = httpx.MockTransport(lambda _: httpx.Response(200))
    async with TokenClient("localhost:1", calls=FakeCalls()) as client:
        token = await client.get("acme")
        auth = PleoAuth(client, "acme", api_url=API)
        fixed = {"Authorization": token.authorization}
        async with (
            httpx.AsyncClient(auth=auth, transport=answered) as ours,
            httpx.AsyncClient(headers=fixed, transport=answered) as plain,
        ):
            for number in range(pairs + 1):
                if number % 2:
                    value, baseline = await _sent(ours, requests), await _sent(plain, requests)
                else:
                    baseline, value = await _sent(plain, requests), await _sent(ours, requests)
                if number:
                    found.append(Pair(value=value, baseline=baseline))
                    step()
    return Figure(
        name="a request with PleoAuth",
        baseline="with a fixed header",
        unit="microseconds",
        aim=1.1,
        is_floor=False,
        pairs=tuple(found),
        note=_note(found, "µs"),
    )


async def _gets(client: TokenClient, count: int) -> float:
    spent = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        for _ in range(count):
            await client.get("tenant-500")
        spent.append((time.perf_counter() - began) / count * _NANO)
    return min(spent)


def _look_ups(known: dict[str, object], count: int) -> float:
    spent = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        for _ in range(count):
            known.get("tenant-500")
        spent.append((time.perf_counter() - began) / count * _NANO)
    return min(spent)


async def _sent(http: httpx.AsyncClient, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        await http.get(API)
    return (time.perf_counter() - began) / count * _MICRO


def _note(found: list[Pair], unit: str) -> str:
    value, baseline = (median(getattr(each, of) for each in found) for of in ("value", "baseline"))
    return f"{value:.0f} {unit} against {baseline:.0f} {unit}"
