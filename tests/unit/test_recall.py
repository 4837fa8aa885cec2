"""What a replica remembers of the rows that it has stored, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.domain.grant import Grant, GrantState, UnreadablePair
from broker.ports import GrantMoved
from broker.service.recall import KEPT_FOR, Recall
from support.grants import some_grant, some_pair
from support.virtual_time import in_virtual_time, pass_time


def stored(tenant: str = "acme") -> Grant:
    return some_grant(tenant=tenant, generation=8, pair=some_pair(8), pair_attempt=13)


def older(tenant: str = "acme") -> Grant:
    return some_grant(tenant=tenant)


@in_virtual_time
async def test_what_was_stored_is_newer_than_the_row_before() -> None:
    recall = Recall()

    recall.keep(stored())

    assert recall.newer_than(older()) == stored()
    assert recall.newer_than(stored()) is None
    assert recall.newer_than(older("other")) is None


@in_virtual_time
async def test_it_is_forgotten_when_a_newer_row_is_read() -> None:
    recall = Recall()
    recall.keep(stored())

    recall.newer_than(replace(stored(), pair_attempt=14))

    assert len(recall) == 0


@in_virtual_time
async def test_it_is_forgotten_at_the_news_of_a_later_generation() -> None:
    recall = Recall()
    recall.keep(stored())

    recall.moved(GrantMoved(tenant="acme", generation=8))
    assert len(recall) == 1
    recall.moved(GrantMoved(tenant="acme", generation=9))

    assert len(recall) == 0


@in_virtual_time
async def test_a_secret_is_not_kept_for_ever() -> None:
    recall = Recall()
    recall.keep(stored())

    await pass_time(KEPT_FOR)
    assert recall.newer_than(older()) is not None
    await pass_time(1)

    assert recall.newer_than(older()) is None


@in_virtual_time
async def test_nor_in_a_replica_that_nobody_asks() -> None:
    recall = Recall()
    recall.keep(stored())

    await pass_time(KEPT_FOR + 1)
    recall.doubted()

    assert not recall._kept  # noqa: SLF001 - every question would itself forget it


@in_virtual_time
async def test_beyond_a_number_the_longest_stored_is_forgotten() -> None:
    recall = Recall(most_kept=2)

    for tenant in ("a", "b", "a", "c"):
        recall.keep(stored(tenant))

    assert recall.newer_than(older("b")) is None
    assert recall.newer_than(older("a")) is not None


@in_virtual_time
async def test_of_a_revoked_grant_no_tokens_are_kept_that_do_not_open() -> None:
    recall = Recall()
    unreadable = UnreadablePair(generation=7, key_id=1, is_key_missing=True)

    recall.keep(replace(stored(), state=GrantState.REVOKED, pair=unreadable, consent_attempt=13))

    kept = recall.newer_than(older())
    assert kept is not None
    assert kept.pair is None


@in_virtual_time
async def test_an_older_row_does_not_take_the_place_of_a_newer_one() -> None:
    recall = Recall()
    recall.keep(stored())

    recall.keep(older())

    assert recall.newer_than(older()) == stored()
    assert recall.doubted() == ["acme"]


@pytest.mark.parametrize(
    "row",
    [
        replace(stored(), pair=UnreadablePair(generation=8, key_id=1, is_key_missing=True)),
        replace(stored(), state=GrantState.HELD),
        replace(stored(), state=GrantState.REAUTH_REQUIRED),
    ],
    ids=["unreadable", "held", "refused"],
)
@in_virtual_time
async def test_what_must_not_come_back_is_not_kept(row: Grant) -> None:
    recall = Recall()
    recall.keep(older())

    recall.keep(row)

    assert len(recall) == 0


@in_virtual_time
async def test_the_last_stored_is_compared_first() -> None:
    recall = Recall()
    for tenant in ("a", "b", "c"):
        recall.keep(stored(tenant))

    recall.doubt_all()
    recall.compared("b")

    assert recall.doubted() == ["c", "a"]
