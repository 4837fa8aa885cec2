"""The gate in the edge: who calls, not too often, and may they? Before a handler begins.

Decides for the tenant that a request names, and for the fleet; a handler that looks at several
tenants asks the `Caller` for each. What is refused is told, and never which rules there are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from broker.domain.errors import CallerRateLimited, CallerUnauthenticated
from broker.domain.fields import check_tenant
from broker.domain.policy import Permission, Policy
from broker.rpc.caller import ANONYMOUS, Caller, Context, refusal
from broker.rpc.methods import ABOUT, DELETE_AT_PROVIDER, REVOKE, About

Identify: TypeAlias = Callable[[Context], Awaitable[str]]
"""Returns who calls. Raises `CallerUnauthenticated` where that is nobody whom we accept."""


class Gate(Protocol):
    """Lets calls in."""

    async def admit(self, rpc: str, request: object, context: Context) -> Caller:
        """Returns who calls. Costs next to nothing: it is on the way to every token.

        Raises:
            CallerUnauthenticated, CallerNotAllowed, CallerRateLimited: the call is not let in.
        """
        ...

    def admit_at_once(
        self, rpc: str, tenant: str, *, context: Context, held: tuple[str, ...]
    ) -> str | None:
        """Returns who is let in for a token of this tenant, of a grant that holds these scopes.

        None: nobody, or it takes time to say. Then `admit` decides, and nothing counts yet.
        """
        ...


class OpenGate:
    """Knows nobody: for a listener on loopback, where whoever calls is at home already."""

    async def admit(self, rpc: str, _request: object, _context: Context) -> Caller:
        """Lets everybody in."""
        return Caller(identity=ANONYMOUS, rpc=rpc)

    def admit_at_once(self, *_: object, **__: object) -> str:
        """Lets everybody in."""
        return ANONYMOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGate:
    """Lets in whom the policy allows."""

    identify: Identify
    policy: Callable[[], Policy]
    """Returns the one that is in force now."""

    check_rate: Callable[[str], None] = lambda _: None
    """Raises `CallerRateLimited` where this identity calls too often."""

    known: Callable[[Context], str | None] = lambda _: None
    """Returns who calls as `identify` would, where that is known without waiting; raises as it."""

    async def admit(self, rpc: str, request: object, context: Context) -> Caller:
        """See `Gate`."""
        identity = await self.identify(context)
        self.check_rate(identity)
        policy = self.policy()
        permission = policy.permission(identity, rpc)
        _check(identity, rpc, request, permission)
        if rpc == REVOKE and getattr(request, "revoke_at_provider", False):
            _check(
                identity,
                DELETE_AT_PROVIDER,
                request,
                policy.permission(identity, DELETE_AT_PROVIDER),
            )
        return Caller(identity=identity, rpc=rpc, policy=self.policy)

    def admit_at_once(
        self, rpc: str, tenant: str, *, context: Context, held: tuple[str, ...]
    ) -> str | None:
        """See `Gate`."""
        try:
            identity = self.known(context)
            if identity is None:
                return None
            permission = self.policy().permission(identity, rpc)
            if not permission.allows(tenant) or permission.missing_scopes(tenant, held):
                return None
            # Last, for it counts; what it refuses it does not count.
            self.check_rate(identity)
        except (CallerUnauthenticated, CallerRateLimited):
            return None
        return identity


def _check(identity: str, rpc: str, request: object, permission: Permission) -> None:
    match ABOUT.get(rpc, About.ONE):
        case About.ONE:
            tenant = getattr(request, "tenant", "")
            if permission.allows(tenant):
                return
            # What is malformed is told by whoever reads it, to callers of this RPC at all.
            is_malformed = check_tenant(tenant) is not None
            if not (is_malformed and permission.is_any()):
                raise refusal(
                    identity, rpc, "for this tenant", tenant=None if is_malformed else tenant
                )
        case About.SEVERAL:
            if not permission.is_any():
                raise refusal(identity, rpc, "for any tenant")
        case About.FLEET:
            if not permission.allows_fleet():
                raise refusal(identity, rpc, "for all tenants")
