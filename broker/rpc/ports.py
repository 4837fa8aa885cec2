"""What the edge asks of the service. `service/`'s facade is all of these at once.

Every method raises a `BrokerError` where the caller is to be told why, and nothing else on purpose.
All are safe to cancel: what must go on does so without its caller (law 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from broker.domain.grant import Grant
from broker.domain.guard import Release
from broker.ports import ListQuery
from broker.service.explaining import Explanation
from broker.service.guard import Released
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RevokeGrant,
    ServedToken,
    StartAuthorization,
    StartedAuthorization,
)


class Tokens(Protocol):
    """Hands out access tokens."""

    async def get_access_token(
        self, tenant: str, *, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        """Returns a living token; `budget` is the time until the caller's deadline."""
        ...

    def note_handed_out(self, tenant: str, *, caller: str, generation: int) -> None:
        """Notes that a caller is given a token. Never waits, and never raises."""
        ...


class Consents(Protocol):
    """Makes grants."""

    async def start_authorization(self, request: StartAuthorization) -> StartedAuthorization:
        """Begins a consent."""
        ...

    async def complete_authorization(self, request: CompleteAuthorization) -> Grant:
        """Completes a consent; the same request again has the same result."""
        ...

    async def import_grant(self, request: ImportGrant) -> Grant:
        """Takes over a refresh token; the same request again presents nothing."""
        ...


class Grants(Protocol):
    """Shows and ends grants."""

    async def get_grant(self, tenant: str) -> Grant:
        """Returns a grant, also a revoked one."""
        ...

    async def list_grants(self, query: ListQuery) -> Sequence[Grant]:
        """Returns a page, ordered by tenant; revoked ones are in it."""
        ...

    async def revoke_grant(self, request: RevokeGrant) -> Grant:
        """Ends a grant, and returns it."""
        ...


class FleetGuard(Protocol):
    """Ends what the fleet guard holds."""

    async def release_guard(self, release: Release, *, by: str, reason: str) -> Released:
        """Releases as many held grants as may be at once; `by` and `reason` are for the record."""
        ...


class Explains(Protocol):
    """Explains grants."""

    async def explain_grant(self, tenant: str, *, limit: int) -> Explanation:
        """Tells all that is known, with as many lines of each record at most."""
        ...


class Operations(FleetGuard, Explains, Protocol):
    """All of what on-call asks for."""
