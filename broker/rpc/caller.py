"""Who calls, and what they may do: decided at the edge before a handler begins, and told here.

Handlers ask `caller_of` for the record and `current_caller` for the rest; how an identity is proven
they need not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc.aio
from google.protobuf.message import Message

from broker.domain.errors import CallerNotAllowed, ScopeMissing
from broker.domain.policy import OPEN, Permission, Policy

Context: TypeAlias = grpc.aio.ServicerContext[Message, Message]

CallerOf: TypeAlias = Callable[[Context], str]
"""Returns the caller's identity, for the record and for what only the same caller may complete."""

ANONYMOUS: Final = "anonymous"
"""Whoever calls on loopback, where identities are not asked for."""

IDENTITY: Final = re.compile(r"(uri|dns|sa):[!-~]{1,500}")
"""What proves itself. Visible ASCII of a bounded length, since it goes into every record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who makes this call, and what the policy allows them with it, also later in a stream."""

    identity: str
    rpc: str
    policy: Callable[[], Policy] = lambda: OPEN
    """Returns the one that is in force now."""

    @property
    def permission(self) -> Permission:
        """What is allowed now."""
        return self.policy().permission(self.identity, self.rpc)

    def check(self, tenant: str) -> None:
        """Refuses a tenant that the policy does not allow.

        Raises:
            CallerNotAllowed: with what was refused, and not which rules there are.
        """
        if not self.permission.allows(tenant):
            raise refusal(self.identity, self.rpc, "for this tenant", tenant=tenant)

    def check_scopes(self, tenant: str, held: Collection[str]) -> None:
        """Refuses a token of a grant that lacks scopes which the policy names.

        Raises:
            ScopeMissing: with those.
        """
        missing = self.permission.missing_scopes(tenant, held)
        if missing:
            raise ScopeMissing(tenant=tenant, missing=missing)


def refusal(identity: str, rpc: str, what: str, *, tenant: str | None = None) -> CallerNotAllowed:
    """Returns the error for what no rule allows."""
    return CallerNotAllowed(
        f"no rule of the policy allows {identity} to call {rpc} {what}",
        tenant=tenant,
        metadata={"caller": identity, "rpc": rpc},
    )


_NOBODY_YET: Final = Caller(identity=ANONYMOUS, rpc="")

_current: Final = ContextVar("current_caller", default=_NOBODY_YET)
# gRPC runs each call in a task of its own, so that nothing has to be set back.


def set_current_caller(caller: Caller) -> None:
    """Tells the handler of this call who calls; for the edge."""
    _current.set(caller)


def current_caller() -> Caller:
    """Returns who makes the call that is being answered."""
    return _current.get()


def caller_of(_: Context) -> str:
    """Returns the identity of who makes the call that is being answered; a `CallerOf`."""
    return _current.get().identity


def seconds_remaining(context: Context) -> float | None:
    """Returns the time until the caller's deadline, never negative; None: there is none.

    gRPC's own word for it; its types leave out that it may be None.
    """
    return context.time_remaining()
