"""Who is on record for a consent and an import."""

from __future__ import annotations

from broker.domain.grant import GrantState
from support.consent_service import WEB, desk
from support.service import fleet
from support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_consent_is_on_record_with_its_caller_also_on_a_reconnect() -> None:
    async with fleet() as ours:
        one = desk(ours)
        for _ in range(2):
            await one.complete(await one.consented())

        told = [(event.actor, event.call, event.before) for event in ours.world.events]
        call = "GrantService/CompleteAuthorization"
        assert told == [(WEB, call, GrantState.UNCONNECTED), (WEB, call, GrantState.ACTIVE)]


@in_virtual_time
async def test_an_import_is_on_record_with_its_caller() -> None:
    async with fleet() as ours:
        await desk(ours).bring(ours.pleo.connect().refresh_token)

        (event,) = ours.world.events
        assert (event.actor, event.call) == (WEB, "GrantService/ImportGrant")
