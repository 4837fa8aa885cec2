"""The tree of errors: one class a reason, the reasons of the API, and nothing secret in any."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import timedelta

import pytest

from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CallerError,
    CallerNotAllowed,
    CallerRateLimited,
    CallerUnauthenticated,
    CodeRejected,
    ConsentDenied,
    ConsentError,
    ExchangeOutcomeUnknown,
    FieldViolation,
    GrantError,
    GrantHeld,
    InternalError,
    InvalidRequest,
    KeyUnavailable,
    OperatorError,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReauthRequired,
    RecordUnreadable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
    ScopeMissing,
    StoreUnavailable,
    SubjectAlreadyConnected,
    SubjectMismatch,
    TenantNotFound,
    TransientError,
)
from broker.domain.grant import ReauthCause
from support.grants import THE_NOW

SAMPLES: dict[str, BrokerError] = {
    "REAUTH_REQUIRED": ReauthRequired(
        tenant="acme", cause=ReauthCause.ROTATION_LOST, since=THE_NOW, generation=7
    ),
    "TENANT_NOT_FOUND": TenantNotFound(tenant="acme", revoked_at=THE_NOW),
    "AUTHORIZATION_STATE_INVALID": AuthorizationStateInvalid(tenant="acme"),
    "CONSENT_DENIED": ConsentDenied(tenant="acme", error="access_denied"),
    "CODE_REJECTED": CodeRejected(tenant="acme", error="invalid_grant"),
    "EXCHANGE_OUTCOME_UNKNOWN": ExchangeOutcomeUnknown(tenant="acme"),
    "SUBJECT_MISMATCH": SubjectMismatch(tenant="acme", expected="urn:a", actual="urn:b"),
    "SUBJECT_ALREADY_CONNECTED": SubjectAlreadyConnected(tenant="acme", subject="urn:a"),
    "REFRESH_TOKEN_REJECTED": RefreshTokenRejected(tenant="acme", error="invalid_grant"),
    "SCOPE_MISSING": ScopeMissing(tenant="acme", missing=["a:read", "b:write"]),
    "CALLER_UNAUTHENTICATED": CallerUnauthenticated("no certificate"),
    "CALLER_NOT_ALLOWED": CallerNotAllowed("no rule", tenant="acme"),
    "CALLER_RATE_LIMITED": CallerRateLimited("too many calls"),
    "PROVIDER_UNAVAILABLE": ProviderUnavailable("Pleo is away", tenant="acme"),
    "PROVIDER_REJECTED_CLIENT": ProviderRejectedClient(tenant="acme", error="invalid_client"),
    "REFRESH_OUTCOME_UNKNOWN": RefreshOutcomeUnknown("no answer", tenant="acme"),
    "REFRESH_IN_PROGRESS": RefreshInProgress("wait", tenant="acme"),
    "GRANT_HELD": GrantHeld("held", tenant="acme"),
    "STORE_UNAVAILABLE": StoreUnavailable("PostgreSQL is away"),
    "KEY_UNAVAILABLE": KeyUnavailable("no such key", tenant="acme"),
    "RECORD_UNREADABLE": RecordUnreadable("does not open", tenant="acme"),
    "INVALID_REQUEST": InvalidRequest(
        [
            FieldViolation(field="tenant", description="must not be empty"),
            FieldViolation(field="page_size", description="must be at most 1000"),
        ]
    ),
    "INTERNAL_ERROR": InternalError(defect_id="d-1"),
}
"""One error for each reason of the contract with callers, which is what the keys list."""

GROUPS = {GrantError, ConsentError, CallerError, TransientError, OperatorError}
RETRIED_BY_NO_CHANNEL = {"REFRESH_OUTCOME_UNKNOWN", "GRANT_HELD", "KEY_UNAVAILABLE"}
METADATA = {
    "REAUTH_REQUIRED": {
        "cause": "ROTATION_LOST",
        "since": "2026-03-01T12:00:00+00:00",
        "generation": "7",
    },
    "TENANT_NOT_FOUND": {"revoked_at": "2026-03-01T12:00:00+00:00"},
    "CONSENT_DENIED": {"error": "access_denied"},
    "CODE_REJECTED": {"error": "invalid_grant"},
    "SUBJECT_MISMATCH": {"expected": "urn:a", "actual": "urn:b"},
    "SUBJECT_ALREADY_CONNECTED": {"subject": "urn:a"},
    "REFRESH_TOKEN_REJECTED": {"error": "invalid_grant"},
    "SCOPE_MISSING": {"missing": "a:read b:write"},
    "PROVIDER_REJECTED_CLIENT": {"error": "invalid_client"},
    "INTERNAL_ERROR": {"error_id": "d-1"},
}
REASONS = pytest.mark.parametrize("reason", SAMPLES)


def below(group: type[BrokerError]) -> Iterator[type[BrokerError]]:
    """Gives every class that the tree has below one, of the domain's own."""
    for each in group.__subclasses__():
        if each.__module__ == BrokerError.__module__:
            yield each
            yield from below(each)


def has_reason(each: type[BrokerError]) -> bool:
    return "reason" in vars(each)


def test_there_is_one_class_for_each_reason_of_the_contract() -> None:
    reasons = [each.reason for each in below(BrokerError) if has_reason(each)]

    assert sorted(reasons) == sorted(SAMPLES)
    assert len(reasons) == len(set(reasons)) == 23


def test_only_groups_have_no_reason() -> None:
    nameless = {each for each in below(BrokerError) if not has_reason(each)}

    assert nameless == GROUPS


@REASONS
def test_an_error_is_made_and_says_what_it_is(reason: str) -> None:
    error = SAMPLES[reason]

    assert error.reason == reason
    assert str(error) == error.message != ""
    assert error.metadata == METADATA.get(reason, {})


@REASONS
def test_every_error_belongs_to_one_group(reason: str) -> None:
    assert [isinstance(SAMPLES[reason], group) for group in GROUPS].count(True) == 1


@REASONS
def test_waiting_helps_where_the_tree_says_so(reason: str) -> None:
    error = SAMPLES[reason]

    assert not isinstance(error, TransientError) or error.retry_after == timedelta(seconds=1)
    may_retry = getattr(error, "may_channel_retry", True)
    assert may_retry is (reason not in RETRIED_BY_NO_CHANNEL)


@REASONS
def test_no_error_is_made_from_a_secret(reason: str) -> None:
    """No constructor takes one: a type that could hold a token is in no signature."""
    parameters = inspect.signature(type(SAMPLES[reason]).__init__).parameters.values()

    assert not [each for each in parameters if "Secret" in str(each) or "Token" in str(each)]


def test_a_caller_learns_when_to_come_back() -> None:
    error = StoreUnavailable("away", retry_after=timedelta(seconds=7))

    assert error.retry_after == timedelta(seconds=7)


def test_metadata_is_the_errors_own() -> None:
    given = {"code": "tls"}
    error = ProviderUnavailable("away", metadata=given)
    given["code"] = "changed"

    assert error.metadata == {"code": "tls"}


def test_an_invalid_request_names_all_problems_at_once() -> None:
    error = SAMPLES["INVALID_REQUEST"]

    assert isinstance(error, InvalidRequest)
    assert error.message == "tenant: must not be empty; page_size: must be at most 1000"
    assert [each.field for each in error.violations] == ["tenant", "page_size"]


def test_a_company_that_was_not_told_is_an_empty_name() -> None:
    error = SubjectMismatch(tenant="acme", expected="urn:a", actual=None)

    assert error.metadata["actual"] == ""


def test_a_tenant_that_was_never_there_has_no_end() -> None:
    assert TenantNotFound(tenant="acme").metadata == {}


def test_which_check_failed_is_told_to_nobody() -> None:
    assert AuthorizationStateInvalid(tenant="acme").metadata == {}
