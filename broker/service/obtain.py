"""GetAccessToken: from memory without I/O, else by a flight that all callers share."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from broker.domain.facts import TokenServed
from broker.ports import Observer
from broker.service.fetch import Errand, Fetcher
from broker.service.flights import Flight, Flights
from broker.service.memory import Memory, served
from broker.service.messages import ServedToken
from broker.service.rejections import Rejections
from broker.service.waiting import wait_for


class Obtain:
    """Hands out access tokens."""

    def __init__(
        self,
        memory: Memory,
        flights: Flights[ServedToken],
        fetcher: Fetcher,
        rejections: Rejections,
        observer: Observer,
    ) -> None:
        """All parts are the process's own, one each."""
        self._memory = memory
        self._flights = flights
        self._fetcher = fetcher
        self._rejections = rejections
        self._observer = observer

    async def get_access_token(
        self, tenant: str, *, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        """Returns a token; `budget` is the time until the caller's deadline.

        Raises:
            BrokerError: no token; the class says why and what to do.
        """
        got = self._at_hand(tenant, rejected_generation or 0)
        if got is None:
            got = await self._from_flight(tenant, rejected_generation, budget)
        # Here and nowhere else: a flight has one token and any number of callers.
        self._observer.observe(TokenServed(source=got.source, degraded=got.is_degraded))
        return got

    async def renew(self, tenant: str) -> None:
        """Gets a token fresh as planned work, for whoever has a place at the turnstile.

        Where callers have a flight under way there is nothing to do. It may have to wait for a
        place yet: whoever waited for it with one would keep it from its own, and all for ever.

        Raises:
            BrokerError: it is not fresh; the class says why.
        """

        async def work(flight: Flight[ServedToken]) -> ServedToken:
            return await self._get_fresh(
                Errand(tenant=tenant, above_generation=0, overdue=flight.overdue, has_turn=True)
            )

        # The flight of callers, so that who asks meanwhile shares it.
        flight_key = (tenant, None)
        if self._flights.find(flight_key) is not None:
            return
        flight = self._flights.join(flight_key, tenant, work)
        await asyncio.wait({flight.landing})
        error = flight.landing.exception()
        if error is not None:
            raise error.with_traceback(None)

    def _at_hand(self, tenant: str, above_generation: int) -> ServedToken | None:
        remembered = self._memory.fresh(tenant)
        if remembered is not None and remembered.generation > above_generation:
            return remembered
        return self._memory.unstored(tenant, above_generation=above_generation)

    async def _from_flight(
        self, tenant: str, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        async def work(flight: Flight[ServedToken]) -> ServedToken:
            return await self._work(flight, rejected_generation)

        # What was rejected is part of the key: it changes the answer.
        flight = self._flights.join((tenant, rejected_generation), tenant, work)
        return await wait_for(flight, self._memory, rejected_generation or 0, budget)

    async def _work(
        self, flight: Flight[ServedToken], rejected_generation: int | None
    ) -> ServedToken:
        above = 0
        if rejected_generation is not None:
            above = await self._rejections.generation_to_beat(flight.tenant, rejected_generation)
        return await self._get_fresh(
            Errand(tenant=flight.tenant, above_generation=above, overdue=flight.overdue)
        )

    async def _get_fresh(self, errand: Errand) -> ServedToken:
        reading = await self._fetcher.fetch(errand, self._observer)
        return served(reading, errand.source)
