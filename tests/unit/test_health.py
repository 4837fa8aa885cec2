"""When this replica is ready, what its checks are known to be, and who is told. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from broker.domain.facts import Fact, LoopFailed
from broker.ops.health import DEFECT, TIMEOUT, Check, CheckResult, Health, HealthSnapshot, Need
from support.virtual_time import in_virtual_time

GOOD = CheckResult()
AWAY = CheckResult(error="STORE_UNAVAILABLE")
OWN_FAULT = CheckResult(error="KEY_UNAVAILABLE", is_own_fault=True)

A_WHILE = 10.0
"""Seconds in which every check is asked several times."""


class Subject:
    """What a check is about: good until the test says otherwise."""

    def __init__(self, name: str, *needed_for: Need, finds: CheckResult = GOOD) -> None:
        self.finds: CheckResult | Exception = finds
        self.hangs = False
        self.asked_at: list[float] = []
        self.check = Check(name=name, probe=self.probe, needed_for=frozenset(needed_for))

    async def probe(self) -> CheckResult:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.finds, Exception):
            raise self.finds
        return self.finds


class Told:
    """An observer."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def observe(self, fact: Fact) -> None:
        self.facts.append(fact)


def postgres(finds: CheckResult = GOOD) -> Subject:
    return Subject("postgres", Need.SERVE, Need.REFRESH, Need.PERSIST, finds=finds)


def keyset(finds: CheckResult = GOOD) -> Subject:
    return Subject("keyset", Need.SERVE, finds=finds)


def pleo(finds: CheckResult = GOOD) -> Subject:
    return Subject("pleo", Need.REFRESH, finds=finds)


def health_of(*subjects: Subject, told: Told | None = None) -> Health:
    return Health([each.check for each in subjects], observer=told or Told())


@asynccontextmanager
async def running(health: Health) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(health.run(), name="health")
        try:
            yield
        finally:
            task.cancel()


@asynccontextmanager
async def watched(*subjects: Subject) -> AsyncIterator[Health]:
    """A health that has been running for a while."""
    health = health_of(*subjects)
    async with running(health):
        await asyncio.sleep(A_WHILE)
        yield health


def test_nothing_is_good_before_it_was_asked() -> None:
    snapshot = health_of(postgres()).snapshot()

    state = snapshot.check("postgres")
    assert (snapshot.is_ready, snapshot.can_refresh, snapshot.can_persist) == (False, False, False)
    assert (state.is_good, state.age, state.last_error) == (False, None, "")


@in_virtual_time
async def test_a_replica_is_ready_once_what_it_needs_is_good() -> None:
    async with watched(postgres(), keyset()) as health:
        snapshot = health.snapshot()

        assert snapshot.is_ready
        assert (snapshot.can_serve, snapshot.can_refresh, snapshot.can_persist) == (True,) * 3


@pytest.mark.parametrize("bad", ["postgres", "keyset"])
def test_a_replica_is_not_ready_while_one_thing_that_it_needs_is_bad(bad: str) -> None:
    @in_virtual_time
    async def story() -> None:
        subjects = [postgres(), keyset()]
        for each in subjects:
            each.finds = AWAY if each.check.name == bad else GOOD
        async with watched(*subjects) as health:
            assert not health.is_ready

    story()


@in_virtual_time
async def test_what_serving_does_not_need_takes_no_readiness() -> None:
    async with watched(postgres(), pleo(AWAY)) as health:
        snapshot = health.snapshot()

        assert snapshot.is_ready
        assert (snapshot.can_refresh, snapshot.can_persist) == (False, True)


@in_virtual_time
async def test_good_one_after_the_other_is_not_good_at_the_same_time() -> None:
    one, other = postgres(), keyset(AWAY)
    async with watched(one, other) as health:
        one.finds = AWAY
        await asyncio.sleep(A_WHILE)
        other.finds = GOOD
        await asyncio.sleep(A_WHILE)

        assert not health.is_ready


@in_virtual_time
async def test_an_outage_that_all_replicas_share_takes_no_readiness_away() -> None:
    store = postgres()
    async with watched(store, keyset()) as health:
        store.finds = AWAY
        await asyncio.sleep(A_WHILE)

        snapshot = health.snapshot()
        assert snapshot.is_ready
        assert (snapshot.can_serve, snapshot.can_refresh, snapshot.can_persist) == (
            True,
            False,
            False,
        )


@in_virtual_time
async def test_a_fault_of_this_replica_takes_readiness_away_while_it_lasts() -> None:
    keys = keyset()
    seen = []
    async with watched(postgres(), keys) as health:
        for finds in (OWN_FAULT, GOOD):
            keys.finds = finds
            await asyncio.sleep(A_WHILE)
            seen.append((health.is_ready, health.snapshot().check("keyset").is_own_fault))

    assert seen == [(False, True), (True, False)]


@in_virtual_time
async def test_a_drain_takes_readiness_away_for_good() -> None:
    async with watched(postgres(), pleo()) as health:
        health.drain()
        await asyncio.sleep(A_WHILE)

        snapshot = health.snapshot()
        assert snapshot.is_draining
        assert (snapshot.is_ready, snapshot.can_refresh, snapshot.can_persist) == (False,) * 3
        assert snapshot.check("postgres").is_good


@in_virtual_time
async def test_a_check_that_hangs_is_bad_and_holds_up_no_other() -> None:
    hanging, other = postgres(), pleo()
    hanging.hangs = True
    async with watched(hanging, other) as health:
        snapshot = health.snapshot()

        assert snapshot.check("postgres").last_error == TIMEOUT
        assert snapshot.check("pleo").is_good
        assert len(other.asked_at) > len(hanging.asked_at) > 1


@in_virtual_time
async def test_a_check_that_hung_is_good_when_it_answers_again() -> None:
    subject = postgres()
    subject.hangs = True
    async with watched(subject) as health:
        subject.hangs = False
        await asyncio.sleep(A_WHILE)

        state = health.snapshot().check("postgres")
        assert (state.is_good, state.last_error) == (True, TIMEOUT)


@in_virtual_time
async def test_a_check_that_raises_is_a_defect_and_is_asked_again() -> None:
    told, subject = Told(), postgres()
    subject.finds = ValueError("quoted by a driver")
    health = health_of(subject, told=told)
    async with running(health):
        await asyncio.sleep(A_WHILE)

        assert health.snapshot().check("postgres").last_error == DEFECT
        assert told.facts[0] == LoopFailed(loop="health postgres", error="ValueError")
        assert len(told.facts) == len(subject.asked_at) > 1


@in_virtual_time
async def test_a_timeout_of_the_checks_own_is_no_defect() -> None:
    told, subject = Told(), postgres()
    subject.finds = TimeoutError()
    health = health_of(subject, told=told)
    async with running(health):
        await asyncio.sleep(A_WHILE)

        assert health.snapshot().check("postgres").last_error == TIMEOUT
        assert told.facts == []


@in_virtual_time
async def test_checks_are_asked_often_until_ready_and_then_seldom() -> None:
    subject = postgres(AWAY)
    async with watched(subject):
        subject.finds = GOOD
        await asyncio.sleep(A_WHILE)

    pauses = [later - at for at, later in zip(subject.asked_at, subject.asked_at[1:], strict=False)]
    assert {round(pause, 3) for pause in pauses} == {0.25, 3.0}
    assert sorted(pauses) == pauses


@in_virtual_time
async def test_the_last_error_is_remembered_with_its_age() -> None:
    subject = postgres(AWAY)
    async with watched(subject) as health:
        subject.finds = GOOD
        await asyncio.sleep(A_WHILE)

        state = health.snapshot().check("postgres")
        assert (state.is_good, state.last_error) == (True, "STORE_UNAVAILABLE")
        assert state.age is not None
        assert state.age <= timedelta(seconds=3)
        assert state.last_error_age is not None
        assert state.last_error_age >= timedelta(seconds=A_WHILE)


@in_virtual_time
async def test_a_listener_is_told_at_once_and_at_every_turn_only() -> None:
    subject, seen = postgres(), list[HealthSnapshot]()
    health = health_of(subject, pleo())
    health.on_change(seen.append)
    async with running(health):
        for finds in (GOOD, AWAY, GOOD):
            subject.finds = finds
            await asyncio.sleep(A_WHILE)
        health.drain()

    assert [each.can_persist for each in seen] == [False, True, True, False, True, False]
    assert [each.is_ready for each in seen] == [False, True, True, True, True, False]


@in_virtual_time
async def test_what_it_would_answer_can_be_read() -> None:
    async with watched(postgres(), pleo(AWAY)) as health:
        assert repr(health) == "<Health ready=True draining=False not good=['pleo']>"


def test_a_check_that_there_is_not_cannot_be_looked_up() -> None:
    with pytest.raises(KeyError):
        health_of(postgres()).snapshot().check("postgre")


@in_virtual_time
async def test_without_checks_it_runs_until_it_is_cancelled() -> None:
    health = health_of()
    async with running(health):
        await asyncio.sleep(A_WHILE)

    assert health.snapshot().checks == ()
