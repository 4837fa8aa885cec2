"""ExplainGrant: reads what is known of a grant, and has its story told. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from broker.domain.errors import TenantNotFound
from broker.domain.explanation import Hold, Known, Planned, hold_of, planned
from broker.domain.grant import GrantState
from broker.domain.story import story
from broker.domain.trouble import Trouble
from broker.ports import Leases, LeaseSeen, Records
from broker.service.fleet import Fleet
from broker.service.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A grant, explained."""

    known: Known
    lease: LeaseSeen
    hold: Hold | None
    planned: Planned | None
    story: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """Explains grants."""

    rows: Rows
    records: Records
    leases: Leases
    fleet: Fleet

    async def explain(
        self, tenant: str, *, limit: int, troubles: tuple[Trouble, ...] = ()
    ) -> Explanation:
        """Tells all that is known, `limit` lines of each record at most. Safe to cancel.

        `troubles`: what this replica finds bad, which the grant's row does not tell.

        Raises:
            TenantNotFound: there never was a grant. StoreUnavailable.
        """
        reading = await self.rows.read(tenant)
        if reading.grant.state is GrantState.UNCONNECTED:
            raise TenantNotFound(tenant=tenant)
        recorded = await self.records.about(tenant, limit=limit)
        known = Known(
            grant=reading.grant,
            now=reading.now,
            attempts=recorded.attempts,
            events=recorded.events,
            disclosures=recorded.disclosures,
            breaker=self.fleet.breaker,
            guard=self.fleet.guard,
            key_id=recorded.key_id,
            troubles=troubles,
        )
        return Explanation(
            known=known,
            lease=await self.leases.look(tenant),
            hold=hold_of(known),
            planned=planned(known),
            story=story(known),
        )
