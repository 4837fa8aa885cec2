"""RefreshGrant: a rotation that is not due, because an operator wants it.

Lease, claim, quarantine, breaker and pauses after failures are those of every refresh; all that
differs is that the present generation does not do. Who asked, and why, is on record before anything
is presented, and stays there whatever becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.decision import Changed
from broker.domain.grant import Grant
from broker.domain.next_step import error_of_state
from broker.ports import Observer
from broker.service.fetch import Errand, Fetcher
from broker.service.flights import Flight, Flights
from broker.service.messages import RefreshGrant
from broker.service.rows import Act, Proposal, Reading, Rows
from broker.service.waiting import wait_for_landing
from broker.service.writing_back import WritingBack

CALL: Final = "OperationsService/RefreshGrant"
"""What the grant's events call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotating:
    """Rotates grants because somebody wants it."""

    rows: Rows
    writing_back: WritingBack
    fetcher: Fetcher
    flights: Flights[Grant]
    observer: Observer

    async def rotate(self, request: RefreshGrant, *, budget: timedelta) -> Grant:
        """Returns the grant with a generation that it did not have when this was called.

        Raises:
            BrokerError: as GetAccessToken without a living token; the class says why.
        """
        before = await self._recorded(request)

        async def work(flight: Flight[Grant]) -> Grant:
            errand = Errand(tenant=request.tenant, above_generation=before, overdue=flight.overdue)
            return (await self.fetcher.fetch(errand, self.observer)).grant

        # Who asks for a successor of the same generation gets the same one.
        flight = self.flights.join(("rotate", request.tenant, before), request.tenant, work)
        return await wait_for_landing(flight, budget)

    async def _recorded(self, request: RefreshGrant) -> int:
        """Writes down who wants it and why; returns the generation that is to be replaced."""

        def propose(current: Reading) -> Proposal:
            error = error_of_state(current.grant)
            if error is not None:
                raise error
            return Proposal(decision=Changed(after=current.grant))

        act = Act(actor=request.caller, call=CALL, reason=request.reason, is_administrative=True)
        # What PostgreSQL has lost comes back first: it is the generation that callers hold.
        reading = await self.writing_back.read(request.tenant)
        written = await self.rows.write(reading, propose, act)
        return written.reading.grant.generation
