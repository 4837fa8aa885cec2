"""Reports that Pleo's API rejected a token: many reporters, one rotation, no killing spree."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.domain.errors import ProviderUnavailable, ReauthRequired, StoreUnavailable
from broker.domain.facts import RejectionReported
from broker.domain.grant import Doubt, GrantState, TokenPair
from broker.sandbox.faults import Hold, Substitute
from broker.sandbox.oauth import Answer
from broker.service.messages import ServedToken
from support.grants import some_reauth
from support.service import Fleet, Replica, fleet, seconds_gone
from support.virtual_time import in_virtual_time, pass_time


def reject_token(ours: Fleet) -> None:
    """Lets Pleo's API refuse every access token."""
    ours.pleo.sandbox.faults.add(Substitute(answer=Answer(status=401)), endpoint="api", times=None)


def verdicts(one: Replica) -> list[str]:
    return [told.verdict for told in one.told.of(RejectionReported)]


@in_virtual_time
async def test_a_thousand_reporters_are_one_rotation() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one, two = ours.replica("one"), ours.replica("two")

        calls = [each.call(rejected=7) for each in (one, two) for _ in range(500)]
        got = await asyncio.gather(*calls)

        assert {served.generation for served in got if isinstance(served, ServedToken)} == {8}
        assert ours.counts().presentations == 1
        assert len(verdicts(one)) == 1


@in_virtual_time
async def test_a_late_report_gets_the_newer_token_and_rotates_nothing() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one, two = ours.replica("one"), ours.replica("two")
        await one.get(rejected=7)

        from_memory, from_row = await one.get(rejected=7), await two.get(rejected=7)

        assert (from_memory.generation, from_row.generation) == (8, 8)
        assert ours.counts().presentations == 1
        assert verdicts(two) == ["moved_on"]


@in_virtual_time
async def test_a_report_within_the_interval_gets_the_same_token_again() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one = ours.replica()
        await one.get(rejected=7)

        await pass_time(29)
        too_soon = await one.get(rejected=8)
        await pass_time(1)
        later = await one.get(rejected=8)

        assert (too_soon.generation, later.generation) == (8, 9)
        assert verdicts(one) == ["believed", "too_soon", "believed"]


@in_virtual_time
async def test_the_interval_doubles_while_reports_go_on() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one = ours.replica()
        rotated_at = []
        for second in range(0, 460, 10):
            before = ours.grant().generation
            await one.get(rejected=before)
            rotated_at += [second] if ours.grant().generation > before else []
            await pass_time(10)

        assert rotated_at == [0, 30, 90, 210, 450]


@in_virtual_time
async def test_a_token_that_pleo_says_is_alive_is_not_rotated() -> None:
    async with fleet() as ours:
        ours.connect()
        one = ours.replica()

        got = await one.get(rejected=7)

        assert (got.generation, got.is_degraded) == (7, False)
        assert ours.counts().presentations == 0
        assert ours.grant().rejection.generation == 0


@pytest.mark.parametrize("unreachable", [True, False])
@in_virtual_time
async def test_a_report_is_believed_where_pleo_says_nothing(unreachable: bool) -> None:  # noqa: FBT001 - of the table
    async with fleet() as ours:
        ours.connect()
        answer = Answer(status=503)
        ours.pleo.sandbox.faults.add(Substitute(answer=answer), endpoint="api")
        if unreachable:
            ours.pleo.unreachable = "connect_refused"

        await ours.replica().call(rejected=7)

        assert ours.grant().rejection.generation == 7


@in_virtual_time
async def test_a_grant_without_access_token_is_not_asked_about() -> None:
    async with fleet() as ours:
        grant = ours.connect()
        assert isinstance(grant.pair, TokenPair)
        ours.put(replace(grant, pair=replace(grant.pair, access_token=None)))

        got = await ours.replica().get(rejected=7)

        assert got.generation == 8


@in_virtual_time
async def test_an_unheard_of_generation_rotates_nothing() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one = ours.replica()

        got = await one.get(rejected=9)

        assert got.generation == 7
        assert ours.counts().presentations == 0
        assert verdicts(one) == ["unheard_of"]


@in_virtual_time
async def test_a_report_in_doubt_presents_once_more() -> None:
    """A refresh that was not due had no answer: nobody else would notice that the token died."""
    async with fleet() as ours:
        ours.connect(doubt=Doubt.DISCLAIMED)
        reject_token(ours)
        one = ours.replica()

        got = await one.get(rejected=7)

        assert (got.generation, ours.counts().presentations) == (8, 1)


@in_virtual_time
async def test_a_token_that_lives_is_left_alone_in_doubt() -> None:
    async with fleet() as ours:
        ours.connect(doubt=Doubt.DISCLAIMED)
        one = ours.replica()

        got = await one.get(rejected=7)

        assert (got.generation, ours.counts().presentations) == (7, 0)


@in_virtual_time
async def test_a_report_about_a_dead_grant_is_not_judged() -> None:
    async with fleet() as ours:
        ours.connect(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
        one = ours.replica()

        error = await one.call(rejected=7)

        assert isinstance(error, ReauthRequired)
        assert verdicts(one) == []


@in_virtual_time
async def test_a_believed_generation_is_never_served_again() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        ours.pleo.unreachable = "connect_refused"
        one, two = ours.replica("one"), ours.replica("two")
        await two.get()
        await one.call(rejected=7)
        await two.news.poll()

        got = [await each.call() for each in (one, two)]

        assert [type(error) for error in got] == [ProviderUnavailable] * 2


@in_virtual_time
async def test_pleo_is_not_asked_again_about_a_generation_that_is_believed() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.unreachable = "connect_refused"
        one = ours.replica()
        await one.call(rejected=7)
        ours.pleo.unreachable = None
        ours.pleo.sandbox.faults.add(Hold(), endpoint="api")
        await pass_time(2)

        got = await one.get(rejected=7)

        assert (got.generation, seconds_gone()) == (8, 2)


@in_virtual_time
async def test_a_report_that_is_recorded_ends_the_copy_at_once() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        one = ours.replica()
        await one.get()
        gate = ours.watch("read", passing=1)

        call = one.call(rejected=7)
        await gate.reached.wait()

        assert ours.grant().rejection.generation == 7
        assert one.memory.fresh("acme") is None
        gate.open()
        await call


@in_virtual_time
async def test_a_rotation_while_pleo_was_asked_is_left_alone() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.pleo.sandbox.faults.add(Hold(), Substitute(answer=Answer(status=401)), endpoint="api")
        one = ours.replica()
        call = one.call(rejected=7)
        await ours.pleo.sandbox.until(held=1)
        ours.put(replace(ours.grant(), generation=8))

        ours.pleo.sandbox.release()
        got = await call

        assert isinstance(got, ServedToken)
        assert (got.generation, ours.grant().rejection.generation) == (8, 0)
        assert ours.counts().presentations == 0


@in_virtual_time
async def test_a_report_that_cannot_be_recorded_rotates_nothing() -> None:
    async with fleet() as ours:
        ours.connect()
        reject_token(ours)
        ours.world.fail_next("apply")

        error = await ours.replica().call(rejected=7)

        assert isinstance(error, StoreUnavailable)
        assert ours.counts().presentations == 0
