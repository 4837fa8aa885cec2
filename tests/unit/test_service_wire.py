"""Presenting within an attempt's times: the window, the moment of being overdue, what is told."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.domain.facts import AttemptAnswered, AttemptOverdue, AttemptSending
from broker.domain.history import AttemptOutcome
from broker.domain.requests import RefreshRequest
from broker.ports import Presentation
from broker.sandbox.faults import Delay, fail
from broker.service.settle import Claimed
from broker.service.wire import presented_token
from support.service import Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, pass_time


async def claimed(one: Replica, tenant: str = "acme") -> Claimed:
    claimed = await one.claims.claim_refresh(await one.rows.read(tenant))
    assert isinstance(claimed, Claimed)
    return claimed


def request_of(mine: Claimed) -> RefreshRequest:
    return RefreshRequest(refresh_token=presented_token(mine.reading.grant))


@pytest.mark.parametrize(("seconds", "presentations"), [(10.0, 1), (10.001, 0)])
@in_virtual_time
async def test_nothing_is_sent_later_than_ten_seconds_after_the_claim(
    seconds: float, presentations: int
) -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        mine = await claimed(one)
        await pass_time(seconds)

        await one.wire.present(mine, request_of(mine))

        assert ours.counts().presentations == presentations


@in_virtual_time
async def test_a_request_is_overdue_when_it_takes_longer_than_it_may() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=12))
        one = ours.replica()
        mine, overdue = await claimed(one), _future()

        presenting = _present(ours, one, mine, overdue)
        await overdue

        assert seconds_gone() == 10
        assert len(one.holdings) == 1
        told = AttemptOverdue(
            tenant="acme",
            kind=mine.attempt.kind,
            number=mine.attempt.number,
            http_timeout=timedelta(seconds=10),
        )
        assert one.told.of(AttemptOverdue) == [told]
        assert (await presenting).http_status == 200
        assert len(one.told.of(AttemptOverdue)) == 1


@in_virtual_time
async def test_a_request_that_is_answered_is_never_overdue() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=9))
        one = ours.replica()
        mine, overdue = await claimed(one), _future()

        await _present(ours, one, mine, overdue)
        await pass_time(60)

        assert not overdue.done()
        assert one.told.of(AttemptOverdue) == []
        assert len(one.holdings) == 0


@in_virtual_time
async def test_nobody_need_be_told_that_a_request_is_overdue() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.connect_expired(tenant="other")
        ours.pleo.sandbox.faults.add(Delay(seconds=12), times=2)
        one = ours.replica()
        mine, others = await claimed(one), await claimed(one, "other")
        told_before = _future()
        told_before.set_result(None)

        answers = await asyncio.gather(
            one.wire.present(mine, request_of(mine)),
            _present(ours, one, others, told_before),
        )

        assert [told.http_status for told in answers] == [200, 200]
        assert {told.tenant for told in one.told.of(AttemptOverdue)} == {"acme", "other"}


@in_virtual_time
async def test_what_was_sent_and_answered_is_told() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        ours.pleo.sandbox.faults.add(Delay(seconds=2), fail(502))
        one = ours.replica()
        mine = await claimed(one)

        await one.wire.present(mine, request_of(mine))

        assert [told.number for told in one.told.of(AttemptSending)] == [mine.attempt.number]
        (told,) = one.told.of(AttemptAnswered)
        assert (told.outcome, told.error, told.http_status) == (
            AttemptOutcome.UNKNOWN,
            "http_502",
            502,
        )
        assert told.duration == timedelta(seconds=2)


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def _present(
    ours: Fleet, one: Replica, mine: Claimed, overdue: asyncio.Future[None]
) -> asyncio.Task[Presentation]:
    presenting = one.wire.present(mine, request_of(mine), overdue=overdue)
    return ours.tasks.create_task(presenting, name="presents")
