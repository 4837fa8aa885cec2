"""What a call can fail with: one class for each reason of `errors.proto`, as callers catch them.

    TokenBrokerError
    ├── BrokerUnreachable     gRPC's own: no connection, no answer in time, cancelled
    └── ReauthRequired, …     one for each ErrorReason

A reason that this library does not know yet is a plain `TokenBrokerError`, to be treated by its
code. None holds a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import ClassVar, Final

import grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of a failure."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    """Of `ErrorReason` without its prefix; empty where gRPC itself made the status."""

    retry_after: timedelta | None = None
    """Not sooner than that; the answer would be the same. None: waiting alone does not help."""

    metadata: Mapping[str, str] = field(default_factory=dict)


class TokenBrokerError(Exception):
    """Root of the tree."""

    known_reason: ClassVar[str] = ""

    def __init__(self, told: Told) -> None:
        super().__init__(told.message)
        self.told = told

    @property
    def reason(self) -> str:
        """The reason, as `REAUTH_REQUIRED`; empty where gRPC itself made the status."""
        return self.told.reason

    @property
    def code(self) -> grpc.StatusCode:
        """The status's code."""
        return self.told.code

    @property
    def retry_after(self) -> timedelta | None:
        """How long to wait before the next try; None: waiting alone does not help."""
        return self.told.retry_after

    @property
    def metadata(self) -> Mapping[str, str]:
        """Every fact of the message again, for programs."""
        return self.told.metadata

    @property
    def tenant(self) -> str:
        """Whom it is about; empty where it is about nobody."""
        return self.told.metadata.get("tenant", "")


class BrokerUnreachable(TokenBrokerError):  # noqa: N818 - named as what happened, as all here
    """No broker answered, or not in time. A token within its lease is used all the same."""


class ReauthRequired(TokenBrokerError):  # noqa: N818
    """The grant is dead until the customer consents again: stop calling, show "reconnect"."""

    known_reason = "REAUTH_REQUIRED"

    @property
    def cause(self) -> str:
        """Why: `EXPIRED_OR_REVOKED`, `ROTATION_LOST` or `OPERATOR`."""
        return self.told.metadata.get("cause", "")

    @property
    def since(self) -> datetime | None:
        """Since when; None: the broker did not say."""
        since = self.told.metadata.get("since")
        return None if since is None else datetime.fromisoformat(since)

    @property
    def generation(self) -> int:
        """Of the pair that died; 0: the broker did not say."""
        return int(self.told.metadata.get("generation", "0"))


class TenantNotFound(TokenBrokerError):  # noqa: N818
    """No grant was made for the tenant, or it was revoked: check the key, or connect the tenant."""

    known_reason = "TENANT_NOT_FOUND"


class AuthorizationStateInvalid(TokenBrokerError):  # noqa: N818
    """The authorization is unknown, spent, or somebody else's: start again."""

    known_reason = "AUTHORIZATION_STATE_INVALID"


class ConsentDenied(TokenBrokerError):  # noqa: N818
    """Pleo redirected with an error: tell the customer."""

    known_reason = "CONSENT_DENIED"


class CodeRejected(TokenBrokerError):  # noqa: N818
    """Pleo refused the authorization code: start again."""

    known_reason = "CODE_REJECTED"


class ExchangeOutcomeUnknown(TokenBrokerError):  # noqa: N818
    """No readable answer came to the authorization code: start again."""

    known_reason = "EXCHANGE_OUTCOME_UNKNOWN"


class SubjectMismatch(TokenBrokerError):  # noqa: N818
    """Another company consented than was expected: ask the customer."""

    known_reason = "SUBJECT_MISMATCH"


class SubjectAlreadyConnected(TokenBrokerError):  # noqa: N818
    """The company belongs to another tenant: ask the customer."""

    known_reason = "SUBJECT_ALREADY_CONNECTED"


class RefreshTokenRejected(TokenBrokerError):  # noqa: N818
    """Pleo refused an imported refresh token: connect the tenant instead."""

    known_reason = "REFRESH_TOKEN_REJECTED"


class ScopeMissing(TokenBrokerError):  # noqa: N818
    """The grant lacks scopes that this caller's policy names: consent with more of them."""

    known_reason = "SCOPE_MISSING"


class CallerUnauthenticated(TokenBrokerError):  # noqa: N818
    """The broker does not know this caller: ask the platform team."""

    known_reason = "CALLER_UNAUTHENTICATED"


class CallerNotAllowed(TokenBrokerError):  # noqa: N818
    """No rule of the policy allows this call: ask the platform team."""

    known_reason = "CALLER_NOT_ALLOWED"


class CallerRateLimited(TokenBrokerError):  # noqa: N818
    """Too many calls: slow down."""

    known_reason = "CALLER_RATE_LIMITED"


class ProviderUnavailable(TokenBrokerError):  # noqa: N818
    """Pleo is down or slow, and no living token is at hand: retry."""

    known_reason = "PROVIDER_UNAVAILABLE"


class ProviderRejectedClient(TokenBrokerError):  # noqa: N818
    """Pleo refuses the broker itself: on-call is paged."""

    known_reason = "PROVIDER_REJECTED_CLIENT"


class RefreshOutcomeUnknown(TokenBrokerError):  # noqa: N818
    """A refresh was sent and no answer came: come back later."""

    known_reason = "REFRESH_OUTCOME_UNKNOWN"


class RefreshInProgress(TokenBrokerError):  # noqa: N818
    """The deadline came before the refresh's end: retry."""

    known_reason = "REFRESH_IN_PROGRESS"


class GrantHeld(TokenBrokerError):  # noqa: N818
    """So many grants were refused at once that on-call decides first: come back later."""

    known_reason = "GRANT_HELD"


class StoreUnavailable(TokenBrokerError):  # noqa: N818
    """The broker cannot reach PostgreSQL, and has no living token in memory: retry."""

    known_reason = "STORE_UNAVAILABLE"


class KeyUnavailable(TokenBrokerError):  # noqa: N818
    """The broker lacks a key: on-call is paged."""

    known_reason = "KEY_UNAVAILABLE"


class RecordUnreadable(TokenBrokerError):  # noqa: N818
    """A sealed value of the broker does not open: on-call is paged."""

    known_reason = "RECORD_UNREADABLE"


class InvalidRequest(TokenBrokerError):  # noqa: N818
    """A field is wrong: fix the call."""

    known_reason = "INVALID_REQUEST"


class InternalError(TokenBrokerError):
    """A defect of the broker, with an id found in its log: report it."""

    known_reason = "INTERNAL_ERROR"


BY_REASON: Final[Mapping[str, type[TokenBrokerError]]] = MappingProxyType(
    {each.known_reason: each for each in TokenBrokerError.__subclasses__() if each.known_reason}
)
"""The class of each reason."""


def error_of(told: Told) -> TokenBrokerError:
    """Returns the exception for what was told."""
    if not told.reason:
        return BrokerUnreachable(told)
    return BY_REASON.get(told.reason, TokenBrokerError)(told)
