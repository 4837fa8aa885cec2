"""ImportGrant: one takeover for all who bring the same token at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from broker.domain.grant import Grant
from broker.ports import ConsentStore
from broker.service.consenting import Consenting, landed
from broker.service.flights import Flight, Flights
from broker.service.import_plan import Brought
from broker.service.messages import ImportGrant
from broker.service.takeover import Takeover


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing:
    """Imports grants."""

    consents: ConsentStore
    consenting: Consenting
    flights: Flights[Grant]

    async def import_grant(self, request: ImportGrant) -> Grant:
        """Returns the grant that the token made, now or before.

        Raises:
            BrokerError: as `Takeover.run`; an earlier grant is as it was.
        """
        fingerprint = await self.consents.fingerprint(request.refresh_token)

        async def work(_: Flight[Grant]) -> Grant:
            told = await self.consenting.whose(request.access_token)
            brought = Brought(request=request, fingerprint=fingerprint, told=told)
            return await Takeover(self.consenting, self.consents, brought).run()

        # Whatever changes the answer. Who differs in it waits for the other's claim.
        options = (request.replace, request.expected_subject, request.scopes, request.expires_at)
        flight = self.flights.join(
            ("import", request.tenant, fingerprint, *options), request.tenant, work
        )
        return await landed(flight)
