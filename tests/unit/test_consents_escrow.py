"""Consents and imports whose pairs others store: whoever asks again hears the owner's result."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from broker.domain.errors import CodeRejected, StoreUnavailable, SubjectAlreadyConnected
from broker.domain.grant import AttemptKind, Grant, GrantState
from broker.domain.history import AttemptOutcome
from broker.domain.imports import SUPERSEDED, ImportOutcome, rotated_unstored
from broker.domain.secret import RefreshToken, Secret
from broker.sandbox.faults import Hold
from support.consent_service import (
    ACME,
    Came,
    Desk,
    HoldOne,
    another_code,
    authorization,
    crash,
    desk,
    exchanges,
    the_import,
)
from support.fake_world import Call
from support.grants import some_attempt, some_grant
from support.service import Fleet, fleet
from support.virtual_time import in_virtual_time, let_others_run, pass_time


async def refuse_writes(call: Call) -> None:
    """PostgreSQL answers questions and takes nothing."""
    if call.method == "apply":
        raise StoreUnavailable("the test refuses writes")


async def let_pass(_: Call) -> None:
    """PostgreSQL is back."""


async def left_in_escrow(ours: Fleet, call: asyncio.Task[Grant | Exception]) -> None:
    """Lets Pleo's answer come while PostgreSQL takes nothing, and the owner die after that."""
    await ours.pleo.sandbox.until(held=1)
    ours.world.on_arrival = refuse_writes
    ours.pleo.sandbox.release()
    await pass_time(1)
    crash()
    await call
    assert ours.redis.escrows
    ours.world.on_arrival = let_pass


async def a_consent_in_escrow(ours: Fleet) -> Came:
    ours.pleo.sandbox.faults.add(Hold(when="after"))
    one = desk(ours)
    came = await one.consented()
    await left_in_escrow(ours, one.call(one.complete(came)))
    return came


async def an_import_in_escrow(ours: Fleet) -> RefreshToken:
    brought = ours.pleo.connect()
    ours.pleo.sandbox.faults.add(Hold(when="after"))
    one = desk(ours)
    await left_in_escrow(ours, one.call(one.bring(brought.refresh_token)))
    return brought.refresh_token


def connect_the_company_elsewhere(ours: Fleet) -> None:
    ours.put(some_grant(tenant="other", subject=ACME))
    row = ours.world.rows["other"]
    ours.world.rows["other"] = replace(row, exclusive_subject=ACME)


async def sweep(one: Desk) -> None:
    await one.service.adoption.sweep()


@in_virtual_time
async def test_who_completes_an_adopted_consent_again_gets_its_grant() -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        came = await a_consent_in_escrow(ours)

        await sweep(two)

        assert (await two.complete(came)).generation == 1
        assert authorization(ours, came).code_verifier is None
        assert len(exchanges(ours)) == 1


@in_virtual_time
async def test_who_completes_again_before_any_sweep_adopts_the_pair() -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        came = await a_consent_in_escrow(ours)

        grant = await two.complete(came)

        assert (grant.state, grant.generation) == (GrantState.ACTIVE, 1)
        assert (len(exchanges(ours)), ours.redis.escrows) == (1, {})


@in_virtual_time
async def test_an_adopted_attempt_is_told_in_the_history() -> None:
    async with fleet() as ours:
        await a_consent_in_escrow(ours)

        await sweep(desk(ours, "two"))

        (line,) = ours.world.attempts
        assert (line.attempt.number, line.outcome) == (1, AttemptOutcome.ROTATED)
        assert line.generation_after == 1


@in_virtual_time
async def test_an_adopted_import_is_recognised_though_a_consent_replaced_it() -> None:
    """The grant's row names the token only until then; presented again, it could end a grant."""
    async with fleet() as ours:
        two = desk(ours, "two")
        brought = await an_import_in_escrow(ours)
        await sweep(two)
        await two.complete(await two.consented())

        grant = await two.bring(brought, replace=True)

        assert (grant.generation, the_import(ours).outcome) == (2, ImportOutcome.STORED)
        assert the_import(ours).refresh_token is None
        assert ours.counts().presentations == 1


@in_virtual_time
async def test_of_an_adopted_consent_too_it_is_told_whose_the_company_is() -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        came = await a_consent_in_escrow(ours)
        connect_the_company_elsewhere(ours)

        await sweep(two)

        with pytest.raises(SubjectAlreadyConnected):
            await two.complete(came)
        assert (ours.grant().state, ours.redis.escrows) == (GrantState.UNCONNECTED, {})


@in_virtual_time
async def test_the_newest_token_of_an_import_that_may_not_be_adopted_is_kept() -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        brought = await an_import_in_escrow(ours)
        connect_the_company_elsewhere(ours)

        await sweep(two)
        await let_others_run()

        assert the_import(ours).error == SUPERSEDED
        assert the_import(ours).refresh_token not in (None, brought)
        assert ours.redis.escrows == {}


async def somebody_claims(one: Desk) -> None:
    """A consent that comes to nothing; its claim waits for the end of what is live."""
    with pytest.raises(CodeRejected):
        await one.complete(await one.consented(), result=another_code())


@in_virtual_time
async def test_it_is_kept_too_where_somebody_has_claimed_since() -> None:
    async with fleet() as ours:
        two = desk(ours, "two")
        brought = await an_import_in_escrow(ours)
        await somebody_claims(two)
        connect_the_company_elsewhere(ours)

        await sweep(two)

        assert the_import(ours).error == SUPERSEDED
        assert the_import(ours).refresh_token not in (None, brought)


@in_virtual_time
async def test_a_newer_token_on_record_is_not_replaced_by_an_escrow() -> None:
    async with fleet() as ours:
        two, newer = desk(ours, "two"), RefreshToken(Secret("rotated once more"))
        await an_import_in_escrow(ours)
        await somebody_claims(two)
        connect_the_company_elsewhere(ours)
        ((key, record),) = ours.world.imports.items()
        ours.world.imports[key] = rotated_unstored(record, newer)

        await sweep(two)

        assert the_import(ours).refresh_token == newer
        assert ours.redis.escrows == {}


@in_virtual_time
async def test_a_token_that_is_put_on_record_after_the_look_is_not_replaced_either() -> None:
    async with fleet() as ours:
        two, newer = desk(ours, "two"), RefreshToken(Secret("rotated once more"))
        held = HoldOne("find_import", 1)
        await an_import_in_escrow(ours)
        connect_the_company_elsewhere(ours)
        ours.world.on_departure = held
        sweeping = two.call(sweep(two))
        await held.reached.wait()
        ((key, record),) = ours.world.imports.items()
        ours.world.imports[key] = rotated_unstored(record, newer)
        ours.put(ours.grant())

        held.let_go()
        await sweeping

        assert the_import(ours).refresh_token == newer


@in_virtual_time
async def test_it_waits_for_whoever_presents_the_same_token_again() -> None:
    """What comes of that is put on record afterwards, and would take the newest token's place."""
    async with fleet() as ours:
        two, held = desk(ours, "two"), HoldOne("find_import", 1)
        await an_import_in_escrow(ours)
        connect_the_company_elsewhere(ours)
        ours.world.on_arrival = held
        sweeping = two.call(sweep(two))
        await held.reached.wait()
        another = some_attempt(number=2, kind=AttemptKind.IMPORT)
        ours.put(replace(ours.grant(), attempt=another, last_attempt=2))

        held.let_go()
        await sweeping

        assert (the_import(ours).error, len(ours.redis.escrows)) == ("", 1)
