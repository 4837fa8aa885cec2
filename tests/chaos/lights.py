"""Which lights, metrics and alerts tell of which fault, and when: `make lights`.

Real brokers, one of them with TLS, behind proxies; each fault lasts a while, with callers whose
tokens end all the time, and afterwards all must be well again. What changes and is not expected is
a false alarm; of the control, in which nothing is broken, whatever changes. `for` and windows of
the alerts are shortened; that they are long is not tried here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from broker.dev.rundir import run_directory
from chaos.lights_faults import FAULTS, Fault
from chaos.lights_scene import Scene, scene_of
from chaos.lights_table import HEAD, Told, document_of, row, summed_up
from chaos.lights_watch import POLL_SECONDS, Seen, bad_lights, metrics_of
from support.cli import Ended, run_beside

STALL_SECONDS: Final = 0.25
"""What Redis is given to answer."""

MOST_SPOILT: Final = 3

BACK_SECONDS: Final = 90.0
"""All is well again: a grant in doubt waits for its deadline, and a breaker for its probe."""


async def observe(scene: Scene, fault: Fault) -> Told:
    """Lets a fault happen and end, and returns what was seen of it."""
    if because := fault.lacks(scene):
        return Told(fault=fault, lights={}, alerts={}, back=0.0, left=frozenset(), metrics={},
                    status="", story="", skipped=because)  # fmt: skip
    before = await metrics_of(scene.brokers, scene.brokers.replicas)
    await fault.strike(scene)
    lights, fired = Seen(), Seen()
    scene.lags.clear()
    while time.monotonic() < lights.began_at + fault.seconds:
        lights.note(await bad_lights(scene.brokers, scene.brokers.replicas))
        fired.note(await scene.alerts.active())
        await asyncio.sleep(POLL_SECONDS)
    after = await metrics_of(scene.brokers, scene.brokers.replicas)
    status, story = await _status(scene), await _story(scene)
    await fault.heal(scene)
    back, left = await _back(scene, lights, fired)
    moved = {name: number - before.get(name, 0.0) for name, number in after.items()}
    metrics = {name: by for name, by in moved.items() if by}
    return Told(fault=fault, lights=lights.first, alerts=fired.first, back=back, left=left,
                metrics=metrics, status=status, story=story,
                late=max(scene.lags, default=0.0))  # fmt: skip


async def observed_well(scene: Scene, fault: Fault) -> Told:
    """As `observe`; again where more was seen than should be while this process stood still.

    Its proxies stand between the brokers and the stores: a stall here is an outage there.
    """
    told = await observe(scene, fault)
    while not told.is_good and told.late > STALL_SECONDS and told.spoilt < MOST_SPOILT:
        sys.stderr.write(f"{fault.name}: late by {told.late:.1f} s, again\n")
        told = replace(await observe(scene, fault), spoilt=told.spoilt + 1)
    return told


async def _back(scene: Scene, lights: Seen, fired: Seen) -> tuple[float | None, frozenset[str]]:
    began_at = time.monotonic()
    bad: set[str] = set()
    while time.monotonic() < began_at + BACK_SECONDS:
        now = await bad_lights(scene.brokers, scene.brokers.replicas)
        calling = await scene.alerts.active()
        lights.note(now)
        fired.note(calling)
        bad = now | calling
        if not bad:
            return time.monotonic() - began_at, frozenset()
        await asyncio.sleep(POLL_SECONDS)
    return None, frozenset(bad)


async def _status(scene: Scene) -> str:
    """Returns what `status` says that is not as it always is."""
    ended = await _call(scene, "status")
    if ended.status:
        return ended.stderr.strip()
    told: dict[str, Any] = ended.document
    bad = [f"{each['name']}: {each.get('last_error', '')}"
           for each in told["dependencies"] if not each["healthy"]]  # fmt: skip
    breaker = told.get("breaker", {})
    if breaker.get("state") == "STATE_OPEN":
        bad.append(f"breaker open: {breaker.get('cause')}")
    bad += [f"{name} unknown" for name in ("grant_counts", "escrow_count") if name not in told]
    counts = told.get("grant_counts", {})
    bad += [f"{name} {counts[name]}" for name in ("in_doubt", "held", "reauth_required")
            if counts.get(name, "0") != "0"]  # fmt: skip
    return "; ".join(bad) or "all well"


async def _story(scene: Scene) -> str:
    ended = await _call(scene, "explain", (scene.gone or scene.customers[0]).tenant)
    if not ended.stdout.strip():
        return ended.stderr.strip()
    told = ended.document
    return (
        f"{told['story'].splitlines()[-1]} | next: {told.get('next_step', {}).get('description')}"
    )


async def _call(scene: Scene, *arguments: str) -> Ended:
    environ = {"BROKER_ADDRESS": scene.callable[0].target}
    return await run_beside(*arguments, "--json", environ=environ)


async def play(names: Sequence[str]) -> list[Told]:
    """Lets the faults of these names happen one after the other; none: all."""
    told: list[Told] = []
    with run_directory() as run:
        async with scene_of(run) as scene:
            if (await _back(scene, Seen(), Seen()))[0] is None:
                raise RuntimeError("the scene is not well before any fault")
            sys.stdout.write(HEAD)
            for fault in FAULTS:
                if not names or fault.name in names:
                    told.append(await observed_well(scene, fault))
                    sys.stdout.write(f"{row(told[-1])}\n")
                    sys.stdout.flush()
    return told


def main() -> int:
    """Returns the exit code: 1 where anything was missing, false, or stayed."""
    parser = argparse.ArgumentParser(prog="make lights", description=__doc__)
    parser.add_argument("faults", nargs="*", help="names of faults; none: all, and the control")
    parser.add_argument(
        "--json", type=Path, help="where the table is written, with the metrics that moved"
    )
    arguments = parser.parse_args()
    told = asyncio.run(play(arguments.faults))
    sys.stdout.write(summed_up(told))
    if arguments.json is not None:
        document = [document_of(each) for each in told]
        arguments.json.write_text(json.dumps(document, indent=1))
    return any(not each.is_good for each in told)


if __name__ == "__main__":
    sys.exit(main())
