"""What `ports.FleetStore` promises, of the fake and of the real one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.evidence import BREAKER_WINDOW, GUARD_WINDOW, Evidence
from broker.domain.fleet import FleetState
from broker.domain.grant import AttemptKind, Doubt, GrantState, Reauth, ReauthCause
from broker.domain.guard import Canary, Guard, GuardState
from broker.domain.history import AttemptOutcome, AttemptRecord, FleetAct
from broker.ports import AnsweredRefresh, Change, FleetStore, GrantStore, Guarded
from broker.store.fleet import ALIVE_FOR
from support.grants import THE_NOW, some_attempt, some_grant, some_pair, some_reauth
from support.store_worlds import StoreWorld, put

REFUSED = AttemptOutcome.REFUSED
ROTATED = AttemptOutcome.ROTATED
UNKNOWN = AttemptOutcome.UNKNOWN
NOT_PROCESSED = AttemptOutcome.NOT_PROCESSED

A_MOMENT = timedelta(seconds=10)
"""Longer than the suite needs from one statement to the next."""

THE_FULLEST = FleetState(
    breaker=Breaker(
        cause=BreakerCause.RATE_LIMITED,
        code="http_429",
        since=THE_NOW,
        probe_at=THE_NOW + timedelta(seconds=1),
        probes=3,
    ),
    guard=Guard(
        state=GuardState.HOLDING,
        since=THE_NOW + timedelta(seconds=2),
        until=THE_NOW + timedelta(hours=4),
        counted_from=THE_NOW + timedelta(seconds=3),
        canary=Canary(tenant="acme", generation=7, refused_at=THE_NOW + timedelta(seconds=4)),
        decided_by="anna",
        reason="we saw it",
    ),
    timeline="7",
    timeline_since=THE_NOW + timedelta(seconds=5),
)


@pytest.fixture
def store(world: StoreWorld) -> FleetStore:
    return world.fleet()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Writes lines of the history of attempts."""

    grants: GrantStore
    now: datetime

    async def add(
        self,
        tenant: str,
        outcome: AttemptOutcome,
        *,
        number: int = 1,
        age: timedelta = A_MOMENT,
        kind: AttemptKind = AttemptKind.REFRESH,
        error: str = "",
        status: int | None = 400,
    ) -> None:
        """Writes the line of an attempt that ended so long ago."""
        before = await self.grants.read(tenant)
        line = AttemptRecord(
            tenant=tenant,
            attempt=some_attempt(number=number, kind=kind),
            outcome=outcome,
            ended_at=self.now - age,
            http_status=status,
            error=error,
        )
        after = some_grant(tenant=tenant, subject=None)
        assert await self.grants.apply(before, Change(after=after, ended=line)) is not None


@pytest.fixture
async def history(world: StoreWorld, store: FleetStore) -> History:
    return History(grants=world.grants(), now=(await store.read()).read_at)


def answered(
    outcome: AttemptOutcome, tenant: str = "mine", *, number: int = 1, error: str = ""
) -> AnsweredRefresh:
    return AnsweredRefresh(tenant=tenant, number=number, outcome=outcome, error=error)


async def counts(store: FleetStore, of: AnsweredRefresh) -> Evidence:
    """Weighs, and leaves out when."""
    return replace(await store.weigh(of), at=THE_NOW)


def evidence(
    *, refused: int = 0, answers: int = 0, unknown: int = 0, limited: int = 0, sent: int = 1
) -> Evidence:
    return Evidence(
        at=THE_NOW,
        refused_grants=refused,
        answered=answers,
        unknown_grants=unknown,
        limited_grants=limited,
        sent=sent,
    )


async def test_the_first_row_is_a_fleet_of_which_nothing_is_known(store: FleetStore) -> None:
    seen = await store.read()

    assert (seen.state, seen.version) == (FleetState(), 1)


@pytest.mark.parametrize("state", [THE_FULLEST, FleetState()])
async def test_a_state_is_read_as_it_was_written(store: FleetStore, state: FleetState) -> None:
    before = await store.apply(await store.read(), replace(THE_FULLEST, timeline="6"))
    assert before is not None

    written = await store.apply(before, state)

    assert written is not None
    read = await store.read()
    assert (read.state, read.version) == (state, written.version)
    assert (written.state, written.version) == (state, before.version + 1)
    assert read.read_at >= written.read_at


async def test_a_write_on_an_old_version_changes_nothing(store: FleetStore) -> None:
    old = await store.read()
    assert await store.apply(old, THE_FULLEST) is not None

    assert await store.apply(old, FleetState(timeline="lost")) is None

    assert (await store.read()).state == THE_FULLEST


async def test_of_two_writes_at_once_one_wins(world: StoreWorld) -> None:
    stores = [world.fleet() for _ in range(4)]
    before = await stores[0].read()

    written = await asyncio.gather(
        *(each.apply(before, FleetState(timeline=str(n))) for n, each in enumerate(stores))
    )

    (winner,) = [each for each in written if each is not None]
    assert (await stores[0].read()).state == winner.state


async def test_the_living_are_counted_by_whoever_reads(store: FleetStore) -> None:
    counted = [(await store.read()).alive]
    for name, build in (("one", "1.0"), ("two", "1.0"), ("two", "1.1")):
        await store.beat(name, build)
        counted.append((await store.read()).alive)

    assert counted == [0, 1, 2, 2]


async def test_who_writes_the_row_is_told_how_many_live(store: FleetStore) -> None:
    before = await store.read()
    await store.beat("one", "1.0")

    written = await store.apply(before, THE_FULLEST)

    assert written is not None
    assert written.alive == 1


async def test_who_fell_silent_counts_for_thirty_seconds(
    world: StoreWorld, store: FleetStore
) -> None:
    await store.beat("one", "1.0")
    await store.beat("two", "1.0")
    await world.silence("two", since=ALIVE_FOR - A_MOMENT)
    still = (await store.read()).alive
    await world.silence("two", since=ALIVE_FOR)

    assert (still, (await store.read()).alive) == (2, 1)


async def test_an_act_about_the_fleet_is_among_the_events(
    world: StoreWorld, store: FleetStore
) -> None:
    act = FleetAct(
        actor="anna", call="guard CONFIRM", reason="why", before="HOLDING", after="CONFIRMING"
    )

    await store.note(act)

    assert await world.history() == ([], ["guard CONFIRM"])


async def test_who_was_silent_for_days_may_come_back(world: StoreWorld, store: FleetStore) -> None:
    await store.beat("one", "1.0")
    await world.silence("one", since=timedelta(days=2))
    await store.beat("two", "1.0")

    await store.beat("one", "1.0")

    assert (await store.read()).alive == 2


@pytest.mark.parametrize("is_written", [True, False])
async def test_the_own_attempt_is_counted_once(
    store: FleetStore, history: History, *, is_written: bool
) -> None:
    if is_written:
        await history.add("mine", REFUSED)

    assert await counts(store, answered(REFUSED)) == evidence(refused=1, answers=1)


async def test_grants_are_counted_and_not_their_refusals(
    store: FleetStore, history: History
) -> None:
    for number in (1, 2):
        await history.add("other", REFUSED, number=number)
    await history.add("mine", REFUSED)

    weighed = await counts(store, answered(REFUSED, number=2))

    assert weighed == evidence(refused=2, answers=4, sent=4)


async def test_refusals_in_doubt_are_answers_and_count_for_no_guard(
    store: FleetStore, history: History, world: StoreWorld
) -> None:
    lost = Reauth(cause=ReauthCause.ROTATION_LOST, since=THE_NOW)
    await history.add("lost", REFUSED)
    await history.add("left", REFUSED)
    state = GrantState.REAUTH_REQUIRED
    await put(world.grants(), some_grant(tenant="lost", subject=None, state=state, reauth=lost))

    sure = answered(REFUSED)
    assert await counts(store, sure) == evidence(refused=2, answers=3, sent=3)
    doubted = replace(sure, was_in_doubt=True)
    assert await counts(store, doubted) == evidence(refused=1, answers=3, sent=3)


async def test_definite_answers_are_counted_whatever_they_were(
    store: FleetStore, history: History
) -> None:
    for number, outcome in enumerate(AttemptOutcome):
        await history.add(f"other-{number}", outcome, error="odd")

    weighed = await store.weigh(answered(ROTATED))

    assert (weighed.refused_grants, weighed.answered, weighed.unknown_grants) == (1, 4, 1)


async def test_lost_answers_are_counted_by_grant(store: FleetStore, history: History) -> None:
    for number in (1, 2):
        await history.add("other", UNKNOWN, number=number, error="http_502", status=502)
    await history.add("another", UNKNOWN, error="connection_lost", status=None)

    assert await counts(store, answered(UNKNOWN)) == evidence(unknown=3, sent=4)


async def test_limits_are_counted_by_grant(store: FleetStore, history: History) -> None:
    for number in (1, 2):
        await history.add("other", NOT_PROCESSED, number=number, error="http_429", status=429)
    await history.add("another", NOT_PROCESSED, error="connect_refused", status=None)

    weighed = await counts(store, answered(NOT_PROCESSED, error="http_429"))

    assert weighed == evidence(limited=2, sent=3)


@pytest.mark.parametrize("kind", [AttemptKind.EXCHANGE, AttemptKind.IMPORT])
async def test_consents_are_not_counted(
    store: FleetStore, history: History, kind: AttemptKind
) -> None:
    for outcome in (REFUSED, ROTATED, UNKNOWN):
        await history.add(f"other-{outcome}", outcome, kind=kind, error="http_429", status=429)

    assert await counts(store, answered(REFUSED)) == evidence(refused=1, answers=1)


async def test_each_window_ends_where_it_should(store: FleetStore, history: History) -> None:
    for name, age in (("in", -A_MOMENT), ("out", timedelta(0))):
        await history.add(f"guard-{name}", REFUSED, age=GUARD_WINDOW + age)
        await history.add(f"lost-{name}", UNKNOWN, age=BREAKER_WINDOW + age)
        await history.add(
            f"limited-{name}", NOT_PROCESSED, age=BREAKER_WINDOW + age, error="http_429"
        )

    weighed = await counts(store, answered(ROTATED))

    assert weighed == evidence(refused=1, answers=2, unknown=1, limited=1, sent=3)


async def test_what_was_decided_on_counts_for_the_guard_no_more(
    store: FleetStore, history: History
) -> None:
    await history.add("before", REFUSED, age=2 * A_MOMENT)
    await history.add("then", REFUSED, age=A_MOMENT)
    await history.add("after", REFUSED, age=A_MOMENT / 2)
    guard = Guard(counted_from=history.now - A_MOMENT)
    assert await store.apply(await store.read(), FleetState(guard=guard)) is not None

    weighed = await counts(store, answered(REFUSED))

    assert weighed == evidence(refused=2, answers=2, sent=4)


async def test_a_decision_from_before_the_clock_was_set_back_hides_nothing(
    store: FleetStore, history: History
) -> None:
    await history.add("before", REFUSED, age=A_MOMENT)
    guard = Guard(counted_from=history.now + timedelta(hours=1))
    assert await store.apply(await store.read(), FleetState(guard=guard)) is not None

    weighed = await counts(store, answered(REFUSED))

    assert weighed == evidence(refused=2, answers=2, sent=2)


async def test_evidence_is_of_postgresqls_time(store: FleetStore) -> None:
    before = await store.read()
    weighed = await store.weigh(answered(REFUSED))
    after = await store.read()

    assert before.read_at <= weighed.at <= after.read_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """Puts refused grants into the world, with names that say how they are."""

    grants: GrantStore
    now: datetime

    async def add(self, name: str, state: GrantState, **ages: timedelta | None) -> None:
        """`refused` ago; in quarantine for `kept` more, or not."""
        kept = ages.get("kept")
        since = self.now - (ages.get("refused") or A_MOMENT)
        grant = some_grant(
            tenant=name,
            subject=None,
            state=state,
            reauth=Reauth(cause=ReauthCause.EXPIRED_OR_REVOKED, since=since),
            quarantined_until=None if kept is None else self.now + kept,
        )
        await put(self.grants, grant)


@pytest.fixture
async def refusals(world: StoreWorld, store: FleetStore) -> Refusals:
    made = Refusals(grants=world.grants(), now=(await store.read()).read_at)
    held, reauth = GrantState.HELD, GrantState.REAUTH_REQUIRED
    await made.add("held", held)
    await made.add("held-long", held, refused=timedelta(days=1))
    doubted = some_reauth()
    await put(
        made.grants,
        some_grant(
            tenant="held-in-doubt",
            subject=None,
            state=held,
            reauth=replace(doubted, since=made.now - timedelta(days=2)),
            doubt=Doubt.DISCLAIMED,
        ),
    )
    await made.add("believed", reauth)
    await made.add("believed-before", reauth, refused=GUARD_WINDOW - A_MOMENT)
    await made.add("believed-long", reauth, refused=GUARD_WINDOW)
    await made.add("kept", reauth, refused=timedelta(days=2), kept=A_MOMENT)
    await made.add("kept-long", reauth, refused=timedelta(days=3), kept=timedelta(0))
    await put(made.grants, some_grant(tenant="active", subject=None))
    gone = some_grant(tenant="destroyed", subject=None, pair=None, expires_at=None, renew_at=None)
    await put(made.grants, replace(gone, state=reauth, reauth=some_reauth()))
    revoked = replace(gone, tenant="revoked", state=GrantState.REVOKED, revoked_at=THE_NOW)
    await put(made.grants, revoked)
    return made


WHICH = [
    (Guarded.HELD, ["held-in-doubt", "held-long", "held"]),
    (Guarded.CERTAIN, ["held-long", "held"]),
    (Guarded.BELIEVED, ["believed", "believed-before", "believed-long"]),
    (Guarded.GIVEN_UP, ["kept"]),
    (Guarded.DEAD, ["believed-long", "kept-long"]),
]


@pytest.mark.usefixtures("refusals")
@pytest.mark.parametrize(("which", "tenants"), WHICH)
async def test_refused_grants_come_in_the_order_of_their_need(
    store: FleetStore, which: Guarded, tenants: list[str]
) -> None:
    assert list(await store.tenants(which, limit=100)) == tenants
    assert list(await store.tenants(which, limit=1)) == tenants[:1]


@pytest.mark.parametrize("which", Guarded)
async def test_where_nothing_was_refused_there_is_nobody(
    store: FleetStore, world: StoreWorld, which: Guarded
) -> None:
    await put(world.grants(), some_grant(pair=some_pair(7)))

    assert list(await store.tenants(which, limit=100)) == []
