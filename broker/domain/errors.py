"""Every failure the broker makes, as one tree. One class a reason; the reason's name is the API's.

    BrokerError
    ├── GrantError            about one tenant's grant; the caller or the customer acts
    ├── ConsentError          about one authorization or import
    ├── CallerError           about who calls, or with what
    ├── TransientError        waiting helps; carries `retry_after`
    └── OperatorError         nobody but on-call can mend it

Messages are for people and hold no secret, URL query or driver text (law 7). Which gRPC status a
reason has is decided in one place, `rpc/status.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from broker.domain.grant import ReauthCause


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One bad field: its path in the request, and what was expected."""

    field: str
    description: str


class BrokerError(Exception):
    """Root of the tree. Not raised itself."""

    reason: ClassVar[str]

    def __init__(
        self,
        message: str,
        *,
        tenant: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`metadata`: every dynamic fact of the message again, for programs (AIP-193)."""
        super().__init__(message)
        self.message = message
        self.tenant = tenant
        self.metadata = dict(metadata or {})


class GrantError(BrokerError):
    """About one tenant's grant."""


class ReauthRequired(GrantError):  # noqa: N818 - the name clients know
    """The grant is dead until the customer consents again (law 5)."""

    reason = "REAUTH_REQUIRED"

    def __init__(
        self, *, tenant: str, cause: ReauthCause, since: datetime, generation: int
    ) -> None:
        """`since`: when Pleo's refusal was settled, on PostgreSQL's clock."""
        super().__init__(
            "the customer must consent again: start a new authorization",
            tenant=tenant,
            metadata={
                "cause": cause.value,
                "since": since.isoformat(),
                "generation": str(generation),
            },
        )


class TenantNotFound(GrantError):  # noqa: N818
    """No grant was made, or it was revoked."""

    reason = "TENANT_NOT_FOUND"

    def __init__(self, *, tenant: str, revoked_at: datetime | None = None) -> None:
        """`revoked_at`: set where there was a grant."""
        super().__init__(
            "no grant for this tenant: check the tenant, or connect it",
            tenant=tenant,
            metadata={} if revoked_at is None else {"revoked_at": revoked_at.isoformat()},
        )


class ScopeMissing(GrantError):  # noqa: N818
    """The grant lacks scopes that the caller's policy names."""

    reason = "SCOPE_MISSING"

    def __init__(self, *, tenant: str, missing: Sequence[str]) -> None:
        """`missing`: the scopes that a new consent must add."""
        super().__init__(
            "the grant lacks scopes: consent again with more scopes",
            tenant=tenant,
            metadata={"missing": " ".join(missing)},
        )


class ConsentError(BrokerError):
    """About one authorization or import; an earlier grant is as it was."""


class AuthorizationStateInvalid(ConsentError):  # noqa: N818
    """Unknown, spent or expired state, or another session, tenant or caller (RFC 9700 §2.1)."""

    reason = "AUTHORIZATION_STATE_INVALID"

    def __init__(self, *, tenant: str) -> None:
        """Say no more than that: which check failed would help an attacker."""
        super().__init__("this authorization cannot be completed: start again", tenant=tenant)


class ConsentDenied(ConsentError):  # noqa: N818
    """Pleo redirected with an error (RFC 6749 §4.1.2.1)."""

    reason = "CONSENT_DENIED"

    def __init__(self, *, tenant: str, error: str) -> None:
        """`error`: the OAuth error code of the redirect."""
        super().__init__("consent was not given at Pleo", tenant=tenant, metadata={"error": error})


class CodeRejected(ConsentError):  # noqa: N818
    """Pleo refused the code."""

    reason = "CODE_REJECTED"

    def __init__(self, *, tenant: str, error: str) -> None:
        """`error`: the OAuth error code of the token endpoint."""
        super().__init__(
            "Pleo refused the authorization code: start again",
            tenant=tenant,
            metadata={"error": error},
        )


class ExchangeOutcomeUnknown(ConsentError):  # noqa: N818
    """The code was sent and no readable answer came; it is not sent twice."""

    reason = "EXCHANGE_OUTCOME_UNKNOWN"

    def __init__(self, *, tenant: str) -> None:
        super().__init__("no answer came from Pleo to the code: start again", tenant=tenant)


class SubjectMismatch(ConsentError):  # noqa: N818
    """Another company consented than the tenant's known or expected one."""

    reason = "SUBJECT_MISMATCH"

    def __init__(self, *, tenant: str, expected: str, actual: str | None) -> None:
        """`actual` None: Pleo did not say which company it was, and this is a reconnect."""
        super().__init__(
            "another Pleo company consented: ask the customer which one is meant",
            tenant=tenant,
            metadata={"expected": expected, "actual": actual or ""},
        )


class SubjectAlreadyConnected(ConsentError):  # noqa: N818
    """The company belongs to another tenant."""

    reason = "SUBJECT_ALREADY_CONNECTED"

    def __init__(self, *, tenant: str, subject: str) -> None:
        """Name the company, never the other tenant: callers are strangers to each other."""
        super().__init__(
            "this Pleo company is connected under another tenant",
            tenant=tenant,
            metadata={"subject": subject},
        )


class RefreshTokenRejected(ConsentError):  # noqa: N818
    """An import was refused by Pleo."""

    reason = "REFRESH_TOKEN_REJECTED"

    def __init__(self, *, tenant: str, error: str) -> None:
        """`error`: the OAuth error code of the token endpoint."""
        super().__init__(
            "Pleo refused the imported refresh token: connect the tenant instead",
            tenant=tenant,
            metadata={"error": error},
        )


class CallerError(BrokerError):
    """About who calls, or with what."""


class CallerUnauthenticated(CallerError):  # noqa: N818
    """The caller has no identity that we accept."""

    reason = "CALLER_UNAUTHENTICATED"


class CallerNotAllowed(CallerError):  # noqa: N818
    """No rule of the policy allows this call."""

    reason = "CALLER_NOT_ALLOWED"


class InvalidRequest(CallerError):  # noqa: N818
    """Fields are wrong; all problems at once."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[FieldViolation], *, tenant: str | None = None) -> None:
        """`violations`: at least one."""
        super().__init__(
            "; ".join(
                f"{each.field}: {each.description}" if each.field else each.description
                for each in violations
            ),
            tenant=tenant,
        )
        self.violations = tuple(violations)


class TransientError(BrokerError):
    """Waiting helps."""

    may_channel_retry: ClassVar[bool] = True
    """False: the pushback trailer forbids the channel's own retries; only the caller decides when
    to come back."""

    def __init__(
        self,
        message: str,
        *,
        tenant: str | None = None,
        retry_after: timedelta = timedelta(seconds=1),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after`: not sooner than that; the answer would be the same."""
        super().__init__(message, tenant=tenant, metadata=metadata)
        self.retry_after = retry_after


class CallerRateLimited(TransientError):  # noqa: N818
    """Too many calls from this caller."""

    reason = "CALLER_RATE_LIMITED"


class ProviderUnavailable(TransientError):  # noqa: N818
    """Pleo is down, slow or rate-limits, and no living token is at hand."""

    reason = "PROVIDER_UNAVAILABLE"


class RefreshOutcomeUnknown(TransientError):  # noqa: N818
    """A refresh was sent and no answer came; nothing is presented before the attempt's deadline."""

    reason = "REFRESH_OUTCOME_UNKNOWN"
    may_channel_retry = False


class RefreshInProgress(TransientError):  # noqa: N818
    """The caller's deadline came before the refresh's end; the refresh goes on."""

    reason = "REFRESH_IN_PROGRESS"


class GrantHeld(TransientError):  # noqa: N818
    """The fleet guard is holding this grant."""

    reason = "GRANT_HELD"
    may_channel_retry = False


class StoreUnavailable(TransientError):  # noqa: N818
    """PostgreSQL cannot be reached, and no living token is in memory."""

    reason = "STORE_UNAVAILABLE"


class KeyUnavailable(TransientError):  # noqa: N818
    """This replica lacks the key a row is sealed under; nothing was changed."""

    reason = "KEY_UNAVAILABLE"
    may_channel_retry = False


class OperatorError(BrokerError):
    """Nobody but on-call can mend it."""


class ProviderRejectedClient(OperatorError):  # noqa: N818
    """Our client id, secret or request is refused; grants are untouched (law 5)."""

    reason = "PROVIDER_REJECTED_CLIENT"

    def __init__(self, *, tenant: str | None = None, error: str = "") -> None:
        """`error`: the OAuth error code Pleo answered."""
        super().__init__(
            "Pleo refuses our client credentials or request; on-call must look",
            tenant=tenant,
            metadata={"error": error},
        )


class RecordUnreadable(OperatorError):  # noqa: N818
    """A sealed value does not open: moved, altered, or sealed by somebody else."""

    reason = "RECORD_UNREADABLE"


class InternalError(OperatorError):
    """A defect, with an id found in the log."""

    reason = "INTERNAL_ERROR"

    def __init__(self, *, defect_id: str, tenant: str | None = None) -> None:
        """Say no more than the id: what went wrong is told to the log alone (law 7)."""
        super().__init__(
            f"a defect of the broker, in its log as {defect_id}",
            tenant=tenant,
            metadata={"error_id": defect_id},
        )
