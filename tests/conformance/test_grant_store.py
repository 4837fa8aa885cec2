"""What `ports.GrantStore` promises, of the fake and of the real one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.authorization import Outcome
from broker.domain.errors import KeyUnavailable, SubjectAlreadyConnected
from broker.domain.grant import (
    AttemptPhase,
    Doubt,
    FailureKind,
    FailureRecord,
    Grant,
    GrantState,
    RejectionRecord,
    UnreadablePair,
)
from broker.domain.history import AttemptOutcome, AttemptRecord, GrantEvent
from broker.domain.imports import Import, ImportOutcome
from broker.domain.policy import Tenants
from broker.domain.secret import RefreshToken, Secret
from broker.ports import (
    Change,
    Conclude,
    GrantMoved,
    GrantStore,
    ListQuery,
    PutImport,
    Spend,
    Unspend,
)
from support.grants import (
    THE_NOW,
    some_attempt,
    some_grant,
    some_grant_under,
    some_pair,
    some_reauth,
)
from support.store_worlds import (
    A_COMPANY,
    StoreWorld,
    as_written,
    change,
    put,
    put_some,
    some_authorization,
)


@pytest.fixture
def store(world: StoreWorld) -> GrantStore:
    return world.grants()


THE_FULLEST = some_grant_under(
    some_attempt(phase=AttemptPhase.CLAIMED),
    state=GrantState.REAUTH_REQUIRED,
    reauth=some_reauth(),
    doubt=Doubt.ABANDONED,
    failures=FailureRecord(
        kind=FailureKind.OUTCOME_UNKNOWN, code="http_502", count=3, next_try_at=THE_NOW
    ),
    rejection=RejectionRecord(
        generation=6, rotated_at=THE_NOW, interval=timedelta(days=1, seconds=30, microseconds=1)
    ),
    scopes=("accounts:read", "cards:read"),
    revoked_at=THE_NOW,
)

THE_LINE = AttemptRecord(
    tenant="acme",
    attempt=some_attempt(),
    outcome=AttemptOutcome.UNKNOWN,
    ended_at=THE_NOW,
    http_status=502,
    error="http_502",
    duration=timedelta(seconds=10),
    generation_after=7,
)

THE_CONCLUSION = Conclude(
    state_hash=b"state" * 8,
    outcome=Outcome(reason="CODE_REJECTED", metadata={"error": "invalid_grant"}),
)

THE_EVENT = GrantEvent(
    tenant="acme",
    actor="broker",
    call="refuse",
    reason="invalid_grant",
    before=GrantState.ACTIVE,
    after=GrantState.REAUTH_REQUIRED,
    generation=7,
)


async def test_a_tenant_without_a_row_is_unconnected(store: GrantStore) -> None:
    seen = await store.read("nobody")

    assert seen.grant == Grant(tenant="nobody")
    assert seen.version == 0


@pytest.mark.parametrize("grant", [Grant(tenant="acme"), some_grant(), THE_FULLEST])
async def test_a_grant_is_read_as_it_was_written(store: GrantStore, grant: Grant) -> None:
    written = await put(store, grant)

    seen = await store.read(grant.tenant)

    assert seen.grant == written.grant == as_written(written, grant)
    assert seen.version == written.version == 1


@pytest.mark.parametrize("grant", [Grant(tenant="acme"), some_grant(), THE_FULLEST])
async def test_a_grant_is_read_as_it_was_rewritten(store: GrantStore, grant: Grant) -> None:
    before = await put(store, some_grant(generation=9, pair=some_pair(9)))

    await change(store, before, grant)

    assert (await store.read("acme")).grant.generation == grant.generation
    assert (await store.read("acme")).grant.pair == grant.pair
    assert (await store.read("acme")).version == 2


async def test_a_pair_without_tokens_stays_one(store: GrantStore) -> None:
    bare = replace(some_pair(7), access_token=None, refresh_token=None)

    await put(store, some_grant(pair=bare))

    assert (await store.read("acme")).grant.pair == bare


async def test_tokens_come_back_as_they_were_whatever_they_are(store: GrantStore) -> None:
    odd = RefreshToken(Secret("ü \x00 \ud800 " + "x" * 16_384))

    await put(store, some_grant(pair=replace(some_pair(7), refresh_token=odd)))

    pair = (await store.read("acme")).grant.pair
    assert pair == replace(some_pair(7), refresh_token=odd)


async def test_a_row_keeps_when_it_was_made_and_tells_when_it_changed(store: GrantStore) -> None:
    first = await put(store, some_grant())

    second = await change(store, first, some_grant(doubt=Doubt.DISCLAIMED))

    assert first.grant.created_at == second.grant.created_at
    assert first.grant.updated_at is not None
    assert second.grant.updated_at is not None
    assert first.grant.updated_at < second.grant.updated_at <= second.read_at


async def test_times_of_reading_grow(store: GrantStore) -> None:
    first = await store.read("acme")

    written = await put(store, some_grant())

    assert first.read_at < written.read_at < (await store.read("acme")).read_at


async def test_a_row_that_changed_meanwhile_is_not_overwritten(store: GrantStore) -> None:
    before = await put(store, some_grant())
    await change(store, before, some_grant(doubt=Doubt.DISCLAIMED))

    late = await store.apply(before, Change(after=some_grant(doubt=Doubt.ABANDONED)))

    assert late is None
    assert (await store.read("acme")).grant.doubt is Doubt.DISCLAIMED


async def test_a_row_that_appeared_meanwhile_is_not_overwritten(store: GrantStore) -> None:
    before = await store.read("acme")
    await put(store, some_grant())

    assert await store.apply(before, Change(after=Grant(tenant="acme"))) is None
    assert (await store.read("acme")).grant.state is GrantState.ACTIVE


@pytest.mark.parametrize("is_there", [False, True])
async def test_of_writes_at_once_exactly_one_wins(store: GrantStore, *, is_there: bool) -> None:
    if is_there:
        await put(store, some_grant())
    before = await store.read("acme")
    changes = [Change(after=some_grant(last_attempt=100 + number)) for number in range(8)]

    written = await asyncio.gather(*(store.apply(before, each) for each in changes))

    (winner,) = [each for each in written if each is not None]
    assert (await store.read("acme")).grant == winner.grant


async def test_lines_of_the_history_go_with_the_grant(world: StoreWorld) -> None:
    store = world.grants()
    before = await store.read("acme")

    await store.apply(before, Change(after=some_grant(), ended=THE_LINE, event=THE_EVENT))

    assert await world.history() == ([13], ["refuse"])
    assert world.lost_history == []


async def test_no_lines_are_written_where_the_grant_was_not(world: StoreWorld) -> None:
    store = world.grants()
    before = await store.read("acme")
    await put(store, some_grant())

    await store.apply(before, Change(after=some_grant(), ended=THE_LINE, event=THE_EVENT))

    assert await world.history() == ([], [])


async def test_a_refused_line_never_rolls_the_grant_back(world: StoreWorld) -> None:
    store = world.grants()
    await world.refuse_history()
    before = await store.read("acme")

    written = await store.apply(before, Change(after=some_grant(), ended=THE_LINE, event=THE_EVENT))

    assert written is not None
    assert (await store.read("acme")).grant == written.grant
    assert world.lost_history == [("acme", 13)]
    assert await world.history() == ([], [])


@pytest.mark.parametrize("is_key_missing", [False, True])
async def test_a_pair_that_does_not_open_is_told_as_such(
    world: StoreWorld, *, is_key_missing: bool
) -> None:
    store = world.grants()
    await put(store, some_grant())

    await world.spoil("acme", is_key_missing=is_key_missing)

    pair = (await store.read("acme")).grant.pair
    assert isinstance(pair, UnreadablePair)
    assert pair.is_key_missing is is_key_missing
    assert pair.generation == 7


async def test_an_unreadable_pair_stays_where_it_is(world: StoreWorld) -> None:
    store = world.grants()
    await put(store, some_grant())
    await world.spoil("acme", is_key_missing=True)
    before = await store.read("acme")

    await change(store, before, replace(before.grant, doubt=Doubt.DISCLAIMED))

    assert (await store.read("acme")).grant.pair == before.grant.pair


async def test_an_unreadable_pair_can_be_replaced(world: StoreWorld) -> None:
    store = world.grants()
    await put(store, some_grant())
    await world.spoil("acme", is_key_missing=False)

    await put(store, some_grant(generation=8, pair=some_pair(8)))

    assert (await store.read("acme")).grant.pair == some_pair(8)


async def test_an_unreadable_pair_cannot_be_moved(world: StoreWorld) -> None:
    store = world.grants()
    await put(store, some_grant())
    await world.spoil("acme", is_key_missing=True)
    pair = (await store.read("acme")).grant.pair

    with pytest.raises(ValueError, match="stay where it is"):
        await put(store, some_grant(tenant="other", pair=pair, subject=None))


async def test_a_revoked_grant_may_keep_its_pair_of_an_earlier_generation(
    store: GrantStore,
) -> None:
    before = await put(store, some_grant())
    tombstone = some_grant(state=GrantState.REVOKED, generation=8, revoked_at=THE_NOW)

    await change(store, before, tombstone)

    assert (await store.read("acme")).grant.pair == some_pair(7)


async def test_nothing_is_armed_where_nothing_can_be_sealed(world: StoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant())
    world.break_sealing()

    with pytest.raises(KeyUnavailable):
        await store.apply(before, Change(after=some_grant_under(some_attempt())))

    assert (await store.read("acme")).version == 1


async def test_a_settlement_that_stores_no_pair_needs_no_sealing(world: StoreWorld) -> None:
    store = world.grants()
    before = await put(store, some_grant_under(some_attempt()))
    world.break_sealing()

    assert await store.apply(before, Change(after=some_grant(last_attempt=13))) is not None


async def test_a_company_belongs_to_one_tenant(store: GrantStore) -> None:
    await put(store, some_grant(subject=A_COMPANY))
    before = await store.read("other")

    with pytest.raises(SubjectAlreadyConnected) as raised:
        await store.apply(
            before, Change(after=some_grant(tenant="other", subject=A_COMPANY), ended=THE_LINE)
        )

    assert raised.value.metadata == {"subject": A_COMPANY}
    assert (await store.read("other")).version == 0


async def test_a_company_may_belong_to_several_where_that_is_allowed(world: StoreWorld) -> None:
    store = world.grants(allow_shared_subject=True)

    await put(store, some_grant(subject=A_COMPANY))
    await put(store, some_grant(tenant="other", subject=A_COMPANY))

    assert (await store.read("other")).grant.subject == A_COMPANY


async def test_a_revoked_tenant_leaves_its_company_to_others(store: GrantStore) -> None:
    await put(store, some_grant(subject=A_COMPANY))
    await put(store, some_grant(state=GrantState.REVOKED, subject=A_COMPANY, revoked_at=THE_NOW))

    await put(store, some_grant(tenant="other", subject=A_COMPANY))

    assert (await store.read("other")).grant.subject == A_COMPANY


async def test_a_rotated_pair_is_stored_whoever_the_company_turns_out_to_be(
    world: StoreWorld,
) -> None:
    store = world.grants()
    await put(store, some_grant(subject=A_COMPANY))
    (before,) = await put_some(store, "other")
    rotated = some_grant(tenant="other", generation=8, pair=some_pair(8), subject=A_COMPANY)

    written = await store.apply(before, Change(after=rotated, ended=THE_LINE))

    assert written is not None
    assert (await store.read("other")).grant == as_written(written, rotated)
    assert await world.history() == ([13], [])


async def test_a_shared_company_is_refused_to_nobody_who_has_it_already(world: StoreWorld) -> None:
    lenient, strict = world.grants(allow_shared_subject=True), world.grants()
    await put(lenient, some_grant(subject=A_COMPANY))
    await put(lenient, some_grant(tenant="other", subject=A_COMPANY))

    await put(strict, some_grant(subject=A_COMPANY, generation=8))
    await put(strict, some_grant(tenant="other", subject=A_COMPANY, generation=8))

    assert (await strict.read("other")).grant.generation == 8


async def test_a_state_is_spent_with_the_claim(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    await consents.start(some_authorization(before.read_at))
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)

    await change(store, before, some_grant(), beside=spend)

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0].code_hash == b"code"
    assert found[0].attempt_number == 13
    assert found[0].spent_at is not None


async def test_nothing_is_written_where_the_state_is_spent_or_unknown(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    await consents.start(some_authorization(before.read_at))
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)
    first = await change(store, before, some_grant(), beside=spend)

    for state_hash in (b"state" * 8, b"unknown"):
        again = Change(after=some_grant(generation=9), beside=replace(spend, state_hash=state_hash))
        assert await store.apply(first, again) is None

    assert (await store.read("acme")).version == 1


async def test_no_state_is_spent_where_the_grant_was_not_written(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    await consents.start(some_authorization(before.read_at))
    await put(store, some_grant())
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)

    assert await store.apply(before, Change(after=some_grant(), beside=spend)) is None

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0].spent_at is None


async def test_of_two_tenants_that_spend_a_state_at_once_one_does(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = [await store.read("acme"), await store.read("other")]
    await consents.start(some_authorization(before[0].read_at))
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)

    written = await asyncio.gather(
        *(
            store.apply(
                each, Change(after=some_grant(tenant=each.grant.tenant, subject=None), beside=spend)
            )
            for each in before
        )
    )

    assert [each is None for each in written].count(True) == 1


async def test_a_spent_state_can_be_made_good_again(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    started = some_authorization(before.read_at)
    await consents.start(started)
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)
    claimed = await change(store, before, some_grant(), beside=spend)

    await change(store, claimed, some_grant(), beside=Unspend(state_hash=b"state" * 8))

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0] == started


async def test_a_conclusion_keeps_the_outcome_and_destroys_the_verifier(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    await consents.start(some_authorization(before.read_at))

    await change(store, before, some_grant(), beside=THE_CONCLUSION)

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0].outcome == THE_CONCLUSION.outcome
    assert found[0].code_verifier is None


async def test_what_is_concluded_stays_spent(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    row = await store.read("acme")
    await consents.start(some_authorization(row.read_at))
    spend = Spend(state_hash=b"state" * 8, code_hash=b"code", attempt_number=13)

    for beside in (spend, THE_CONCLUSION, Unspend(state_hash=b"state" * 8)):
        row = await change(store, row, some_grant(), beside=beside)

    found = await consents.find(b"state" * 8)
    assert found is not None
    assert found[0].code_hash == b"code"
    assert found[0].spent_at is not None


async def test_a_pair_is_stored_although_its_authorization_is_gone(store: GrantStore) -> None:
    before = await store.read("acme")
    conclude = Conclude(state_hash=b"gone", outcome=Outcome(reason="", metadata={}))

    await change(store, before, some_grant(), beside=conclude)

    assert (await store.read("acme")).version == 1


async def test_an_import_is_written_and_rewritten_beside_its_grant(world: StoreWorld) -> None:
    store, consents = world.grants(), world.consents()
    before = await store.read("acme")
    pending = Import(
        tenant="acme",
        fingerprint=b"fingerprint",
        refresh_token=RefreshToken(Secret("fake-imported")),
        presentations=1,
    )
    stored = replace(pending, refresh_token=None, outcome=ImportOutcome.STORED)

    claimed = await change(store, before, some_grant(), beside=PutImport(record=pending))
    first = await consents.find_import(b"fingerprint")
    await change(store, claimed, some_grant(), beside=PutImport(record=stored))
    second = await consents.find_import(b"fingerprint")

    assert first is not None
    assert first == replace(pending, created_at=first.created_at)
    assert second == replace(stored, created_at=first.created_at)


async def test_a_token_of_another_tenants_import_goes_with_no_grant(world: StoreWorld) -> None:
    store = world.grants()
    record = Import(
        tenant="acme",
        fingerprint=b"fingerprint",
        refresh_token=RefreshToken(Secret("fake-imported")),
    )
    theirs = PutImport(record=replace(record, tenant="other"))
    await change(store, await store.read("acme"), some_grant(), beside=PutImport(record=record))
    before = await store.read("other")
    other = some_grant(tenant="other", subject=None)

    assert await store.apply(before, Change(after=other, beside=theirs)) is None

    assert (await store.read("other")).version == 0
    found = await world.consents().find_import(b"fingerprint")
    assert found is not None
    assert found.tenant == "acme"


async def test_grants_are_listed_by_tenant_in_pages(store: GrantStore) -> None:
    await put_some(store, "b", "Z", "a", "a/1", "c")

    first = await store.list_grants(ListQuery(limit=3))
    second = await store.list_grants(ListQuery(limit=3, after_tenant=first[-1].tenant))

    assert [grant.tenant for grant in first] == ["Z", "a", "a/1"]
    assert [grant.tenant for grant in second] == ["b", "c"]


async def test_a_list_shows_tombstones_and_no_tokens_and_nobody_unconnected(
    store: GrantStore,
) -> None:
    await put(store, Grant(tenant="claimed"))
    await put(store, some_grant(tenant="gone", state=GrantState.REVOKED, revoked_at=THE_NOW))

    listed = await store.list_grants(ListQuery())

    assert [(grant.tenant, grant.pair) for grant in listed] == [("gone", None)]


async def test_a_list_can_be_narrowed_by_state(store: GrantStore) -> None:
    await put_some(store, "active")
    await put(
        store, some_grant(tenant="dead", state=GrantState.REAUTH_REQUIRED, reauth=some_reauth())
    )

    wanted = frozenset({GrantState.REAUTH_REQUIRED, GrantState.HELD})

    listed = await store.list_grants(ListQuery(states=wanted))
    assert [grant.tenant for grant in listed] == ["dead"]


@pytest.mark.parametrize(
    ("patterns", "seen"),
    [
        (["a"], ["a"]),
        (["a", "eu_*", "c"], ["a", "c", "eu_1", "eu_1/x"]),
        (["eu*"], ["eu1", "eu_1", "eu_1/x"]),
        (["A*"], []),
        ([], []),
        (["a", "*"], ["a", "a%", "c", "eu1", "eu_1", "eu_1/x"]),
    ],
)
async def test_a_list_can_be_narrowed_to_tenants(
    store: GrantStore, patterns: list[str], seen: list[str]
) -> None:
    await put_some(store, "a", "a%", "c", "eu1", "eu_1", "eu_1/x")
    query = ListQuery(limit=2, tenants=Tenants.matching(patterns))

    listed: list[str] = []
    while page := await store.list_grants(query):
        listed += [grant.tenant for grant in page]
        query = replace(query, after_tenant=listed[-1])

    assert listed == seen


async def test_a_list_can_be_narrowed_to_what_changed_since(store: GrantStore) -> None:
    first, _ = await put_some(store, "first", "second")

    listed = await store.list_grants(ListQuery(updated_after=first.grant.updated_at))

    assert [grant.tenant for grant in listed] == ["second"]


async def test_the_first_look_at_changes_tells_none(store: GrantStore) -> None:
    await put_some(store, "acme")

    page = await store.changes(-1)

    assert page.moved == []
    assert not page.is_rewound


async def test_a_new_generation_or_state_is_told(store: GrantStore) -> None:
    first, second, _ = await put_some(store, "rotated", "refused", "idle")
    cursor = (await store.changes(-1)).cursor

    await change(store, first, replace(first.grant, generation=8))
    await change(
        store,
        second,
        replace(second.grant, state=GrantState.REAUTH_REQUIRED, reauth=some_reauth()),
    )

    moved = sorted((await store.changes(cursor)).moved, key=lambda each: each.tenant)
    assert moved == [
        GrantMoved(tenant="refused", generation=7, version=2),
        GrantMoved(tenant="rotated", generation=8, version=2),
    ]


async def test_a_believed_rejection_is_told(store: GrantStore) -> None:
    (before,) = await put_some(store, "acme")
    cursor = (await store.changes(-1)).cursor

    await change(store, before, replace(before.grant, rejection=RejectionRecord(generation=7)))

    assert [each.tenant for each in (await store.changes(cursor)).moved] == ["acme"]


async def test_a_new_tenant_is_told(store: GrantStore) -> None:
    cursor = (await store.changes(-1)).cursor

    await put_some(store, "acme")

    assert [each.tenant for each in (await store.changes(cursor)).moved] == ["acme"]


async def test_a_claim_moves_nothing(store: GrantStore) -> None:
    before = await put(store, some_grant())
    cursor = (await store.changes(-1)).cursor

    await change(store, before, some_grant_under(some_attempt()))

    assert (await store.changes(cursor)).moved == []


async def test_a_cursor_goes_on_where_the_last_look_ended(store: GrantStore) -> None:
    cursor = (await store.changes(-1)).cursor
    await put_some(store, "acme")
    following = (await store.changes(cursor)).cursor

    page = await store.changes(following)

    assert page.moved == []
    assert page.cursor >= following


async def test_a_cursor_from_the_future_tells_that_the_store_was_rewound(
    store: GrantStore,
) -> None:
    cursor = (await store.changes(-1)).cursor

    assert (await store.changes(cursor + 1_000_000)).is_rewound
    assert not (await store.changes(cursor)).is_rewound


async def test_use_is_noted_and_changes_nothing_else(store: GrantStore) -> None:
    before, idle = await put_some(store, "used", "idle")
    cursor = (await store.changes(-1)).cursor

    await store.note_used(["used", "nobody", "used"])

    after = await store.read("used")
    assert after.grant.last_used_at is not None
    assert after.grant == replace(before.grant, last_used_at=after.grant.last_used_at)
    assert after.version == before.version
    assert (await store.read("idle")).grant == idle.grant
    assert (await store.changes(cursor)).moved == []


async def test_a_write_leaves_the_last_use_as_it_is(store: GrantStore) -> None:
    before = await put(store, some_grant())
    await store.note_used(["acme"])

    written = await change(store, before, some_grant(doubt=Doubt.DISCLAIMED))

    assert written.grant.last_used_at is not None
    assert (await store.read("acme")).grant == written.grant
