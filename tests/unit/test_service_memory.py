"""Copies in memory: newest wins, news makes stale, and nothing outlives its life or its room."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.facts import Source
from broker.domain.grant import Grant, GrantState, RejectionRecord, TokenPair
from broker.ports import GrantMoved
from broker.service.memory import Copy, Memory, served
from broker.service.messages import ServedToken
from support.grants import THE_NOW, some_grant, some_pair, some_reauth
from support.service import some_reading
from support.virtual_time import in_virtual_time, pass_time


def generation_of(served_token: ServedToken | None) -> int | None:
    return None if served_token is None else served_token.generation


def moved(version: int, tenant: str = "acme") -> GrantMoved:
    return GrantMoved(tenant=tenant, generation=8, version=version)


@in_virtual_time
async def test_a_copy_is_fresh_until_its_renewal_time_itself() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant()))
    await pass_time(8 * 60 - 0.5)
    assert generation_of(memory.fresh("acme")) == 7

    await pass_time(0.5)

    assert memory.fresh("acme") is None
    assert generation_of(memory.living("acme", above_generation=0)) == 7


@in_virtual_time
async def test_a_copy_lives_until_its_expiry_itself() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant()))
    await pass_time(10 * 60 - 0.5)
    assert memory.living("acme", above_generation=0) is not None

    await pass_time(0.5)

    assert memory.living("acme", above_generation=0) is None


@in_virtual_time
async def test_times_count_from_before_the_row_was_asked_for() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(renew_at=THE_NOW + timedelta(seconds=1)), age=3.0))

    await pass_time(1.0)

    assert memory.fresh("acme") is None


@in_virtual_time
async def test_what_is_served_counts_from_now() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant()))
    await pass_time(60)

    fresh = memory.fresh("acme")

    assert fresh is not None
    assert fresh.expires_in == timedelta(minutes=9)
    assert fresh.reuse_for == timedelta(minutes=7) - timedelta(seconds=5)
    assert not fresh.is_degraded


@in_virtual_time
async def test_an_earlier_version_replaces_nothing() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(generation=8), version=5))

    memory.keep(some_reading(some_grant(), version=4))

    assert generation_of(memory.fresh("acme")) == 8


@in_virtual_time
async def test_a_later_version_replaces_what_was_there() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(), version=4))

    memory.keep(some_reading(some_grant(generation=8), version=5))

    assert generation_of(memory.fresh("acme")) == 8
    assert len(memory) == 1


@in_virtual_time
async def test_no_refresh_token_is_kept() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant()))

    (copy,) = memory._copies.values()  # noqa: SLF001 - nothing shows it outside

    pair = copy.grant("acme").pair
    assert isinstance(pair, TokenPair)
    assert pair.refresh_token is None
    assert not any("refresh" in name for name in Copy.__slots__)


@pytest.mark.parametrize(
    "gone",
    [
        some_grant(state=GrantState.REVOKED, pair=None),
        some_grant(state=GrantState.REAUTH_REQUIRED, reauth=some_reauth()),
        some_grant(pair=None),
        some_grant(pair=replace(some_pair(7), access_token=None)),
        Grant(tenant="acme"),
    ],
)
@in_virtual_time
async def test_a_grant_without_a_usable_token_leaves_no_copy(gone: Grant) -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(), version=4))

    memory.keep(some_reading(gone, version=5))

    assert len(memory) == 0


@in_virtual_time
async def test_a_row_read_before_an_end_does_not_bring_the_token_back() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(state=GrantState.REVOKED, pair=None), version=5))

    memory.keep(some_reading(some_grant(), version=4, age=1.0))

    assert memory.fresh("acme") is None


@in_virtual_time
async def test_a_held_grant_is_kept_to_stand_in_alone() -> None:
    memory = Memory()

    memory.keep(some_reading(some_grant(state=GrantState.HELD)))

    assert memory.fresh("acme") is None
    assert generation_of(memory.living("acme", above_generation=0)) == 7


@in_virtual_time
async def test_a_reported_generation_is_served_in_no_way() -> None:
    memory = Memory()

    memory.keep(some_reading(some_grant(rejection=RejectionRecord(generation=7))))

    assert memory.fresh("acme") is None
    assert memory.living("acme", above_generation=0) is None


@pytest.mark.parametrize(("version", "is_stale"), [(4, False), (5, False), (6, True), (0, True)])
@in_virtual_time
async def test_news_makes_older_copies_stale_alone(version: int, is_stale: bool) -> None:  # noqa: FBT001 - of the table
    memory = Memory()
    memory.keep(some_reading(some_grant(), version=5))

    assert memory.moved(moved(version)) is is_stale

    assert (memory.fresh("acme") is None) is is_stale
    assert memory.living("acme", above_generation=0) is not None


@in_virtual_time
async def test_news_of_an_unknown_tenant_makes_nothing_stale() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant()))

    assert not memory.moved(moved(9, tenant="another"))

    assert memory.fresh("acme") is not None


@in_virtual_time
async def test_a_row_read_before_the_news_of_it_is_stale_when_it_comes() -> None:
    memory = Memory()
    memory.moved(moved(5))

    memory.keep(some_reading(some_grant(), version=4, age=1.0))

    assert memory.fresh("acme") is None
    assert memory.living("acme", above_generation=0) is not None


@in_virtual_time
async def test_late_news_does_not_hide_what_was_known_before() -> None:
    memory = Memory()
    memory.moved(moved(5))
    memory.moved(moved(4))

    memory.keep(some_reading(some_grant(), version=4, age=1.0))

    assert memory.fresh("acme") is None


@pytest.mark.parametrize("version", [5, 6])
@in_virtual_time
async def test_a_row_as_new_as_the_news_is_fresh(version: int) -> None:
    memory = Memory()
    memory.moved(moved(5))

    memory.keep(some_reading(some_grant(), version=version, age=1.0))

    assert memory.fresh("acme") is not None


@in_virtual_time
async def test_a_row_asked_for_after_the_news_is_fresh_whatever_its_version() -> None:
    memory = Memory()
    memory.moved(moved(5))
    await pass_time(1)

    memory.keep(some_reading(some_grant(), version=2))

    assert memory.fresh("acme") is not None


@in_virtual_time
async def test_all_copies_become_stale_at_once_and_still_stand_in() -> None:
    memory = Memory()
    for tenant in ("acme", "other"):
        memory.keep(some_reading(some_grant(tenant=tenant)))

    memory.mark_all_stale()

    assert (memory.fresh("acme"), memory.fresh("other")) == (None, None)
    assert memory.living("other", above_generation=0) is not None


@in_virtual_time
async def test_a_row_on_its_way_while_all_became_stale_is_stale_too() -> None:
    memory = Memory()
    memory.mark_all_stale()

    memory.keep(some_reading(some_grant(), age=1.0))
    assert memory.fresh("acme") is None
    await pass_time(1)
    memory.keep(some_reading(some_grant()))

    assert memory.fresh("acme") is not None


@in_virtual_time
async def test_the_copy_written_longest_ago_makes_room() -> None:
    memory = Memory(most_copies=2)
    for version, tenant in enumerate(("first", "second", "first", "third"), start=1):
        memory.keep(some_reading(some_grant(tenant=tenant), version=version))

    assert len(memory) == 2
    assert memory.fresh("second") is None
    assert memory.fresh("first") is not None


@in_virtual_time
async def test_what_was_heard_is_bounded_too() -> None:
    memory = Memory(most_copies=2)

    for tenant in ("first", "second", "third"):
        memory.moved(moved(9, tenant=tenant))

    assert list(memory._heard) == ["second", "third"]  # noqa: SLF001 - nothing shows it outside


@pytest.mark.parametrize("dead", [some_grant(pair=None), some_grant(expires_at=None)])
@in_virtual_time
async def test_serving_what_is_not_there_is_a_defect(dead: Grant) -> None:
    with pytest.raises(ValueError, match="ACTIVE"):
        served(some_reading(dead), Source.DATABASE)


@in_virtual_time
async def test_a_token_without_a_renewal_time_may_not_be_kept_by_callers() -> None:
    memory = Memory()
    memory.keep(some_reading(some_grant(renew_at=None)))

    living = memory.living("acme", above_generation=0)

    assert memory.fresh("acme") is None
    assert living is not None
    assert living.reuse_for == timedelta(0)
