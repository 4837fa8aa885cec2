"""What the edge asks of the service. `service/`'s facade is all of these at once, but for `Keys`.

Every method raises a `BrokerError` where the caller is to be told why, and nothing else on purpose.
All are safe to cancel: what must go on does so without its caller (law 8).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol

from broker.domain.fleet_report import FleetReport
from broker.domain.grant import Grant
from broker.domain.guard import Release
from broker.domain.trouble import Trouble
from broker.ports import ListQuery
from broker.service.explaining import Explanation
from broker.service.guard import Released
from broker.service.memory import Copy
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RefreshGrant,
    RevokeGrant,
    ServedToken,
    StartAuthorization,
    StartedAuthorization,
)
from broker.service.rewrapping import RewrapProgress
from broker.service.watch import Watch


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


class AtHand(Protocol):
    """Hands out tokens from memory: without waiting, and without asking anybody."""

    def copy(self, tenant: str) -> Copy | None:
        """Returns a token that may be handed out now. Costs next to nothing, changes nothing."""
        ...

    def note_used(self, tenant: str) -> None:
        """Notes that a token was asked for. Never waits, and never raises."""
        ...

    def note_handed_out(self, tenant: str, *, caller: str, generation: int) -> None:
        """As `Tokens` has it."""
        ...


class Watches(Protocol):
    """Tells of every change of a tenant's token."""

    def watch(self) -> AbstractContextManager[Watch]:
        """Returns a watch of no tenant yet, for as long as the block runs."""
        ...

    def subscribe(self, watch: Watch, tenant: str) -> None:
        """Tells it how a tenant stands, and then what changes."""
        ...

    def unsubscribe(self, watch: Watch, tenant: str) -> None:
        """Tells it no more of a tenant."""
        ...


class Consents(Protocol):
    """Makes grants."""

    async def start_authorization(self, request: StartAuthorization) -> StartedAuthorization:
        """Begins a consent."""
        ...

    async def complete_authorization(
        self, request: CompleteAuthorization, *, budget: timedelta | None
    ) -> Grant:
        """Completes a consent; the same request again has the same result.

        `budget`: the time until the caller's deadline, if there is one.
        """
        ...

    async def import_grant(self, request: ImportGrant, *, budget: timedelta | None) -> Grant:
        """Takes over a refresh token; the same request again presents nothing.

        `budget`: as for a consent.
        """
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


class Keys(Protocol):
    """Seals rows anew (`service.rewrapping`)."""

    async def count_keys(self) -> RewrapProgress:
        """Counts what is under other keys than the primary one; changes nothing."""
        ...

    def rewrap_keys(self, *, by: str, reason: str) -> AsyncGenerator[RewrapProgress, None]:
        """Rewraps while it is asked for more; `by` and `reason` are for the record."""
        ...


class Rotations(Protocol):
    """Rotates grants because somebody wants it."""

    async def refresh_grant(self, request: RefreshGrant, *, budget: timedelta) -> Grant:
        """Returns the grant with its new generation; `budget` as for a token."""
        ...


class FleetReports(Protocol):
    """Tells how the fleet is."""

    async def fleet_report(self) -> FleetReport:
        """Returns what can be found out in a moment; never raises for what cannot."""
        ...

    def troubles(self) -> tuple[Trouble, ...]:
        """Returns what this replica finds bad, from memory."""
        ...


class Explains(Protocol):
    """Explains grants."""

    async def explain_grant(
        self, tenant: str, *, limit: int, troubles: tuple[Trouble, ...]
    ) -> Explanation:
        """Tells all that is known, with as many lines of each record at most."""
        ...
