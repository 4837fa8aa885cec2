"""A small share of `python -m bench.replacing`: what is replaced under load fails no call."""

from __future__ import annotations

from pathlib import Path

from bench.replacing import measure


async def test_a_replaced_certificate_and_policy_fail_no_call(tmp_path: Path) -> None:
    load, replaced = await measure(tmp_path, rate=50, seconds=5.0)

    assert set(load.ended) == {"OK"}
    assert load.connections > 10
    assert replaced >= 2
