"""The tenants of a test, and what a test does to them. May be told so from any thread.

Upholds the ports of TokenService (`rpc/ports.py`). A planned rotation happens where somebody asks
after the end of the lease; what a report does is what the broker does: one rotation, or none where
the generation has moved on.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.domain.errors import BrokerError, ReauthRequired, TenantNotFound
from broker.domain.facts import Source
from broker.domain.grant import ReauthCause
from broker.domain.secret import AccessToken, Secret
from broker.service.messages import ServedToken
from broker.service.watching import Watching
from broker.testing.failures import failure_of

LIFETIME: Final = timedelta(minutes=10)
"""Of a token; nothing ends during a test that does not say so."""

_LEASE_SHARE: Final = 0.8
"""Of the lifetime that callers may keep a token for, about as the broker has it."""

_NONE: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call of GetAccessToken, or one tenant of a batch."""

    tenant: str
    rejected_generation: int | None
    budget: timedelta
    """Until the caller's deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tenant:
    generation: int
    lifetime: timedelta
    scopes: tuple[str, ...]
    access_token: AccessToken = field(
        default_factory=lambda: AccessToken(Secret(f"fake-access-{secrets.token_hex(16)}"))
    )
    issued_at: float = field(default_factory=time.monotonic)
    is_degraded: bool = False
    failure: BrokerError | None = None


class FakeTokenBroker:
    """A broker in memory."""

    def __init__(self) -> None:
        """Knows no tenant. `serving.py` gives it an address."""
        self.address = ""
        """What a client is given, as `127.0.0.1:50051`."""

        self.asked: list[Asked] = []
        """All calls, oldest first; what is watched is not among them."""

        self.handed_out: list[tuple[str, int]] = []
        """Tenant and generation of every token that went out, watches included."""

        self.believes_reports = True
        """False: a report of a 401 brings the same token, as where Pleo says that it lives, or
        where one was believed shortly before."""

        self.watching = Watching(self._look)
        self._tenants: dict[str, _Tenant] = {}
        self._outage: BrokerError | str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def connect(
        self, tenant: str, *, lifetime: timedelta = LIFETIME, scopes: tuple[str, ...] = ()
    ) -> int:
        """Connects a tenant, or connects it again, and returns the generation."""
        known = self._tenants.get(tenant)
        generation = 1 if known is None else known.generation + 1
        self._put(tenant, _Tenant(generation=generation, lifetime=lifetime, scopes=scopes))
        return generation

    def rotate(self, tenant: str) -> int:
        """Gives a tenant its next token, and returns the generation: the old token is dead."""
        known = self._connected(tenant)
        return self.connect(tenant, lifetime=known.lifetime, scopes=known.scopes)

    def degrade(self, tenant: str) -> None:
        """Has the token be served without a lease, as where it cannot be renewed."""
        self._put(tenant, replace(self._connected(tenant), is_degraded=True))

    def require_reauth(
        self, tenant: str, *, cause: ReauthCause | str = ReauthCause.EXPIRED_OR_REVOKED
    ) -> None:
        """Ends a grant: REAUTH_REQUIRED until the tenant is connected again."""
        generation = self._connected(tenant).generation
        self.fail(
            tenant,
            ReauthRequired(
                tenant=tenant,
                cause=ReauthCause(cause),
                since=datetime.now(UTC),
                generation=generation,
            ),
        )

    def revoke(self, tenant: str) -> None:
        """Ends a grant as RevokeGrant does: TENANT_NOT_FOUND until it is connected again."""
        self.fail(tenant, TenantNotFound(tenant=tenant, revoked_at=datetime.now(UTC)))

    def fail(self, tenant: str, failure: BrokerError | str) -> None:
        """Has calls for a tenant fail until it is connected again.

        `failure`: a reason of TokenService, as `GRANT_HELD`, or an error of `broker.domain.errors`.

        Raises:
            ValueError: there is no such reason.
        """
        error = failure_of(failure, tenant=tenant) if isinstance(failure, str) else failure
        self._put(tenant, replace(self._connected(tenant), failure=error))

    @contextmanager
    def outage(self, failure: BrokerError | str = "PROVIDER_UNAVAILABLE") -> Iterator[None]:
        """Has all calls fail in the block, as `fail` has those for one tenant."""
        if isinstance(failure, str):
            failure_of(failure, tenant="")
        self._outage = failure
        self._tell(*self._tenants)
        try:
            yield
        finally:
            self._outage = None
            self._tell(*self._tenants)

    def access_token(self, tenant: str) -> str:
        """Returns the living token, for a fake of Pleo's API to compare with."""
        return self._connected(tenant).access_token.reveal()

    async def run(self) -> None:
        """Follows what is watched until it is cancelled; for `serving.py`."""
        self._loop = asyncio.get_running_loop()
        try:
            await self.watching.run()
        finally:
            self._loop = None

    async def get_access_token(
        self, tenant: str, *, rejected_generation: int | None, budget: timedelta
    ) -> ServedToken:
        """See `rpc.ports.Tokens`."""
        self.asked.append(
            Asked(tenant=tenant, rejected_generation=rejected_generation, budget=budget)
        )
        known = self._known(tenant)
        if rejected_generation == known.generation and self.believes_reports:
            self.rotate(tenant)
        return await self._look(tenant)

    def note_handed_out(self, tenant: str, *, caller: str, generation: int) -> None:  # noqa: ARG002 - there is one caller
        """See `rpc.ports.Tokens`."""
        self.handed_out.append((tenant, generation))

    async def _look(self, tenant: str) -> ServedToken:
        known = self._known(tenant)
        if not known.is_degraded and _age(known) >= known.lifetime * _LEASE_SHARE:
            self.rotate(tenant)
        return _served(self._tenants[tenant])

    def _connected(self, tenant: str) -> _Tenant:
        if tenant not in self._tenants:
            raise LookupError(f"the test has not connected {tenant!r} to the fake broker")
        return self._tenants[tenant]

    def _known(self, tenant: str) -> _Tenant:
        outage = self._outage
        if outage is not None:
            raise failure_of(outage, tenant=tenant) if isinstance(outage, str) else outage
        known = self._tenants.get(tenant)
        if known is None:
            raise TenantNotFound(tenant=tenant)
        if known.failure is not None:
            raise known.failure
        return known

    def _put(self, tenant: str, known: _Tenant) -> None:
        self._tenants[tenant] = known
        self._tell(tenant)

    def _tell(self, *tenants: str) -> None:
        loop = self._loop
        if loop is not None:
            for tenant in tenants:
                loop.call_soon_threadsafe(self.watching.moved, tenant)


def _age(known: _Tenant) -> timedelta:
    return timedelta(seconds=time.monotonic() - known.issued_at)


def _served(known: _Tenant) -> ServedToken:
    age, now = _age(known), datetime.now(UTC)
    expires_in = max(known.lifetime - age, _NONE)
    lease = max(known.lifetime * _LEASE_SHARE - age, _NONE)
    reuse_for = _NONE if known.is_degraded else lease
    return ServedToken(
        access_token=known.access_token,
        token_type="Bearer",  # noqa: S106 - RFC 6750's word
        expires_at=now + expires_in,
        expires_in=expires_in,
        reuse_until=now + reuse_for,
        reuse_for=reuse_for,
        scopes=known.scopes,
        generation=known.generation,
        source=Source.MEMORY,
        is_degraded=known.is_degraded,
    )
