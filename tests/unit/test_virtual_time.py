"""The virtual clock: it jumps, keeps order, and notices when nobody goes on."""

from __future__ import annotations

import asyncio

import pytest

from support.virtual_time import (
    START,
    NobodyGoesOnError,
    in_virtual_time,
    let_others_run,
    run_virtual,
)


@in_virtual_time
async def test_an_hour_passes_at_once_and_exactly() -> None:
    await asyncio.sleep(3600)

    assert asyncio.get_running_loop().time() == START + 3600


@in_virtual_time
async def test_timers_fire_in_their_order_at_their_time() -> None:
    loop, fired = asyncio.get_running_loop(), list[tuple[str, float]]()

    def fire(name: str) -> None:
        fired.append((name, loop.time() - START))

    for name, seconds in (("late", 2.0), ("soon", 0.5), ("later", 30.25)):
        loop.call_later(seconds, fire, name)
    await asyncio.sleep(31)

    assert fired == [("soon", 0.5), ("late", 2.0), ("later", 30.25)]


@in_virtual_time
async def test_time_stands_while_somebody_can_go_on() -> None:
    timer = asyncio.get_running_loop().call_later(0.001, lambda: None)

    await let_others_run(turns=1000)

    assert asyncio.get_running_loop().time() == START
    timer.cancel()


def test_a_wait_for_nothing_fails_instead_of_hanging() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NobodyGoesOnError):
        run_virtual(waits_for_ever())
