"""A pending consent: what StartAuthorization remembers until the customer comes back.

The `state` travels through the customer's browser and is stored hashed; the PKCE verifier never
leaves the broker and is stored sealed (RFC 7636 §4.1). A state is spent once. Its outcome is kept
for its time to live, so that a reloaded page or a client's retry gets the same result.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from broker.domain.secret import CodeVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a completion ended."""

    reason: str
    """`""` for success, else the ErrorReason."""

    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The row of one started authorization."""

    state_hash: bytes
    """SHA-256 of the `state`, which has 256 random bits: no salt is needed."""

    tenant: str
    session_binding_hash: bytes
    """SHA-256 of the caller's session binding."""

    caller: str
    code_verifier: CodeVerifier | None
    """None once spent and settled, or where it does not open."""

    redirect_uri: str
    scopes: tuple[str, ...]
    expected_subject: str | None
    allow_subject_change: bool
    created_at: datetime
    expires_at: datetime
    spent_at: datetime | None = None
    code_hash: bytes | None = None
    """SHA-256 of the code that spent it."""

    attempt_number: int | None = None
    """The attempt that presents the code."""

    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Who comes back with a state, and with what."""

    tenant: str
    session_binding_hash: bytes
    caller: str
    code_hash: bytes | None
    """None: Pleo redirected with an error."""


class Admission(Enum):
    """What a return leads to."""

    INVALID = auto()
    """Another session, tenant or caller, or too late: the state is spent, nothing is sent."""

    FIRST = auto()
    REPEATED = auto()
    """The same code again: the same result, joined if it is still under way."""


def admit(authorization: Authorization, returning: Return, now: datetime) -> Admission:
    """Decides whether a return may complete the authorization (RFC 9700 §2.1, §4.7.1)."""
    is_theirs = (
        authorization.tenant == returning.tenant
        and authorization.caller == returning.caller
        and hmac.compare_digest(authorization.session_binding_hash, returning.session_binding_hash)
    )
    if not is_theirs or now >= authorization.expires_at:
        return Admission.INVALID
    if authorization.spent_at is None:
        return Admission.FIRST
    is_same = hmac.compare_digest(authorization.code_hash or b"", returning.code_hash or b"")
    return Admission.REPEATED if is_same else Admission.INVALID
