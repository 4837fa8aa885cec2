"""PostgreSQL away, slow, half closed, silent at a commit, or ended by force and started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final

from chaos.cases import Case, release
from chaos.outages import OUTAGE_SECONDS, Outage, all_rotated, ready, soon
from chaos.stage import Stage
from support.replica import Replica
from support.waiting import comes_true

_SLOW_SECONDS: Final = 0.3
"""Each way: a read and a commit take half a second each, and no timeout is reached."""

_SETTLEMENT: Final = b"INSERT INTO refresh_attempts"
"""In the one statement with which an attempt is settled."""

_KEPT_SECONDS: Final = 4.0
"""For an escrow to be acknowledged: two tries of a settlement, and what Valkey's timeouts allow."""


async def away_before(stage: Stage, cases: Sequence[Case]) -> None:
    """Cuts it off before anything was presented: then nothing may be."""
    between = stage.way.postgres
    between.refuse()
    between.cut()
    await asyncio.sleep(OUTAGE_SECONDS)
    for case in cases:
        if stage.brokers.sandbox.record.counts(case.customer.company).presentations:
            case.notes.append("presented without PostgreSQL")
    await between.accept()


async def away_after(stage: Stage, cases: Sequence[Case]) -> None:
    """Cuts it off when Pleo has rotated and has not answered yet."""
    between = stage.way.postgres
    await all_rotated(stage, cases)
    between.refuse()
    between.cut()
    release(stage.brokers.sandbox, cases)
    await asyncio.sleep(OUTAGE_SECONDS)
    await between.accept()


async def owners_killed(stage: Stage, cases: Sequence[Case]) -> None:
    """Kills every broker that holds a pair which PostgreSQL, cut off, did not take."""
    between, owners = stage.way.postgres, list(stage.replicas)
    await all_rotated(stage, cases)
    between.refuse()
    between.cut()
    release(stage.brokers.sandbox, cases)
    await _kept(owners, cases)
    heirs = [stage.brokers.launch(**stage.way.settings) for _ in owners]
    for each in owners:
        each.kill()
    await between.accept()
    await ready(stage, heirs)
    stage.replicas = heirs


async def _kept(owners: Sequence[Replica], cases: Sequence[Case]) -> None:
    """Waits until every pair is in escrow, or should be."""

    def are_kept() -> bool:
        return all(_is_kept(owners, each) for each in cases)

    await comes_true(are_kept, seconds=_KEPT_SECONDS)


def _is_kept(owners: Sequence[Replica], case: Case) -> bool:
    wanted = {"tenant": case.tenant, "is_acknowledged": True}
    return any(each.seen("escrow_written", **wanted) for each in owners)


async def slow(stage: Stage, _cases: Sequence[Case]) -> None:
    """Lets everything to it and from it take its time."""
    stage.way.postgres.delay(_SLOW_SECONDS)
    await asyncio.sleep(OUTAGE_SECONDS)
    stage.way.postgres.heal()


async def half_closed(stage: Stage, _cases: Sequence[Case]) -> None:
    """Ends one direction of every connection, again and again."""
    for end in ("client", "server", "client"):
        await soon(stage)
        stage.way.postgres.half_close(end)


async def silent_at_commit(stage: Stage, cases: Sequence[Case]) -> None:
    """Swallows the acknowledgement of a settlement, and all answers after it for a while."""
    between = stage.way.postgres
    await all_rotated(stage, cases)
    between.lose_answers(asked=_SETTLEMENT)
    release(stage.brokers.sandbox, cases)
    await between.answer_lost()
    await asyncio.sleep(OUTAGE_SECONDS)
    between.heal()
    between.cut()


async def cut_at_commit(stage: Stage, cases: Sequence[Case]) -> None:
    """Ends the connection on which a pair is stored in place of the acknowledgement."""
    between = stage.way.postgres
    await all_rotated(stage, cases)
    for case in cases:
        between.lose_answers(asked=_SETTLEMENT, loss="cut")
        release(stage.brokers.sandbox, [case])
        await between.answer_lost()
        between.heal()


async def ended_by_force(stage: Stage, _cases: Sequence[Case]) -> None:
    """Restarts it as `pg_ctl stop -m immediate` does: nothing is finished, all is recovered."""
    await soon(stage)
    os.kill(stage.postgres.pid, signal.SIGQUIT)
    await stage.postgres.stop()
    await stage.postgres.start()


POSTGRES_OUTAGES: Final = (
    Outage(fault="PostgreSQL cut before the claim", act=away_before),
    Outage(fault="PostgreSQL cut after rotation", act=away_after, is_held=True),
    Outage(fault="… and the owners killed", act=owners_killed, is_held=True),
    Outage(fault="PostgreSQL slow", act=slow),
    Outage(fault="PostgreSQL half closed", act=half_closed),
    Outage(fault="PostgreSQL silent at the commit", act=silent_at_commit, is_held=True),
    Outage(fault="PostgreSQL cut at the commit", act=cut_at_commit, is_held=True),
    Outage(fault="PostgreSQL restarted by force", act=ended_by_force),
)
