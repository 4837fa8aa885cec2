"""ExplainGrant: read from the row, the records and Redis, and told."""

from __future__ import annotations

import pytest

from broker.domain.errors import StoreUnavailable, TenantNotFound
from broker.domain.facts import LeaseStanding
from broker.domain.grant import GrantState
from support.consent_service import desk
from support.fake_lease import FakeLeases
from support.service import BUDGET, fleet
from support.virtual_time import in_virtual_time


@in_virtual_time
async def test_all_that_is_known_is_told() -> None:
    async with fleet() as ours:
        ours.connect_expired()
        one = desk(ours)
        served = await one.service.broker.get_access_token(
            "acme", rejected_generation=None, budget=BUDGET
        )
        one.service.broker.note_handed_out("acme", caller="sa:web", generation=served.generation)
        await one.service.disclosures.flush()

        explained = await one.service.broker.explain_grant("acme", limit=20)

        known = explained.known
        assert known.grant.generation == served.generation
        assert [each.generation_after for each in known.attempts] == [served.generation]
        assert [each.caller for each in known.disclosures] == ["sa:web"]
        assert known.key_id is not None
        assert explained.planned is not None
        assert explained.planned.due_at == known.grant.renew_at
        assert explained.story.endswith("What to do: Nothing: it works.")
        assert explained.lease.standing is LeaseStanding.FREE


@in_virtual_time
async def test_a_tenant_that_was_never_connected_is_not_found() -> None:
    async with fleet() as ours:
        with pytest.raises(TenantNotFound):
            await desk(ours).service.broker.explain_grant("acme", limit=20)


@in_virtual_time
async def test_a_revoked_grant_is_explained() -> None:
    async with fleet() as ours:
        ours.connect(state=GrantState.REVOKED)

        explained = await desk(ours).service.broker.explain_grant("acme", limit=20)

        assert explained.known.grant.state is GrantState.REVOKED


@in_virtual_time
async def test_who_holds_the_lease_is_seen() -> None:
    async with fleet() as ours:
        ours.connect()
        async with FakeLeases(ours.redis, replica="two").hold("acme"):
            explained = await desk(ours).service.broker.explain_grant("acme", limit=20)

        assert (explained.lease.standing, explained.lease.holder) == (LeaseStanding.HELD, "two")


@in_virtual_time
async def test_without_redis_all_else_is_told() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.redis.is_reachable = False

        explained = await desk(ours).service.broker.explain_grant("acme", limit=20)

        assert explained.lease.standing is LeaseStanding.UNREACHABLE
        assert explained.known.grant.generation == 7


@in_virtual_time
async def test_without_postgresql_nothing_is_told() -> None:
    async with fleet() as ours:
        ours.connect()
        ours.world.fail_next("about")

        with pytest.raises(StoreUnavailable):
            await desk(ours).service.broker.explain_grant("acme", limit=20)
