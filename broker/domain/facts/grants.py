"""What one grant went through beside its attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.domain.grant import ReauthCause


@dataclass(frozen=True, slots=True, kw_only=True)
class ReauthBecameRequired:
    """The customer must consent again."""

    tenant: str
    cause: ReauthCause
    provider_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRevoked:
    """A grant was revoked, and serves no token any more.

    Why is on record in the caller's own words (`GrantEvent`), which are in no log.
    """

    tenant: str
    generation: int
    by: str
    at_provider: bool
    """Whether the installation at Pleo is deleted next; what becomes of that the call tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionReported:
    """A caller says that Pleo's API rejected a token."""

    tenant: str
    generation: int
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalEnded:
    """A rotation as planned work is over, or there was nothing to do any more."""

    tenant: str
    overdue_for: timedelta
    """When it was taken up."""

    reason: str
    """Why it failed; empty where it did not."""
