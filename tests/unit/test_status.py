"""Every reason of the API: its code, and what it says about retrying."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CallerNotAllowed,
    CallerRateLimited,
    CallerUnauthenticated,
    CodeRejected,
    ConsentDenied,
    ExchangeOutcomeUnknown,
    FieldViolation,
    GrantHeld,
    InternalError,
    InvalidRequest,
    KeyUnavailable,
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
from broker.rpc.status import CODES, MOST_VIOLATIONS, SHORTEST_PUSHBACK, pushback_of, status_of
from broker.v1.errors_pb2 import ErrorReason
from support.grants import THE_NOW
from support.rpc import details, retry_delay

A_VIOLATION = FieldViolation(field="tenant", description="must be a tenant")
A_WHILE = timedelta(milliseconds=2500)

# Reason, code, RetryInfo, and the trailer for channels.
TABLE: list[tuple[BrokerError, str, timedelta | None, str | None]] = [
    (
        ReauthRequired(
            tenant="acme", cause=ReauthCause.ROTATION_LOST, since=THE_NOW, generation=41
        ),
        "FAILED_PRECONDITION",
        None,
        None,
    ),
    (TenantNotFound(tenant="acme", revoked_at=THE_NOW), "NOT_FOUND", None, None),
    (AuthorizationStateInvalid(tenant="acme"), "FAILED_PRECONDITION", None, None),
    (ConsentDenied(tenant="acme", error="access_denied"), "FAILED_PRECONDITION", None, None),
    (CodeRejected(tenant="acme", error="invalid_grant"), "FAILED_PRECONDITION", None, None),
    (ExchangeOutcomeUnknown(tenant="acme"), "FAILED_PRECONDITION", None, None),
    (SubjectMismatch(tenant="acme", expected="a", actual=None), "FAILED_PRECONDITION", None, None),
    (SubjectAlreadyConnected(tenant="acme", subject="a"), "FAILED_PRECONDITION", None, None),
    (RefreshTokenRejected(tenant="acme", error="x"), "FAILED_PRECONDITION", None, None),
    (ScopeMissing(tenant="acme", missing=["a", "b"]), "FAILED_PRECONDITION", None, None),
    (CallerUnauthenticated("no certificate"), "UNAUTHENTICATED", None, None),
    (CallerNotAllowed("no rule"), "PERMISSION_DENIED", None, None),
    (CallerRateLimited("slowly", retry_after=A_WHILE), "RESOURCE_EXHAUSTED", A_WHILE, "2500"),
    (ProviderUnavailable("Pleo is away", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "2500"),
    (ProviderRejectedClient(tenant="acme", error="invalid_client"), "INTERNAL", None, None),
    (RefreshOutcomeUnknown("sent", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "-1"),
    (RefreshInProgress("under way", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "2500"),
    (GrantHeld("held", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "-1"),
    (StoreUnavailable("away", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "2500"),
    (KeyUnavailable("no such key", retry_after=A_WHILE), "UNAVAILABLE", A_WHILE, "-1"),
    (RecordUnreadable("does not open"), "DATA_LOSS", None, None),
    (InvalidRequest([A_VIOLATION]), "INVALID_ARGUMENT", None, None),
    (InternalError(defect_id="d-1"), "INTERNAL", None, None),
]


def info_of(status: Status) -> ErrorInfo:
    (info,) = details(status, ErrorInfo)
    return info


@pytest.mark.parametrize(("error", "code", "delay", "pushback"), TABLE)
def test_a_reason_has_its_code_and_its_way_of_retrying(
    error: BrokerError, code: str, delay: timedelta | None, pushback: str | None
) -> None:
    status = status_of(error)

    assert status.code == grpc.StatusCode[code].value[0]
    assert retry_delay(status) == delay
    assert pushback_of(error) == pushback


@pytest.mark.parametrize("error", [row[0] for row in TABLE])
def test_a_status_tells_its_reason_twice_and_every_fact(error: BrokerError) -> None:
    status = status_of(error)

    info = info_of(status)
    assert status.message == f"{error.reason}: {error.message}"
    assert (info.domain, info.reason) == ("pleo-token-broker", error.reason)
    assert dict(info.metadata) == error.metadata | (
        {"tenant": error.tenant} if error.tenant else {}
    )


def test_the_table_has_every_reason_of_the_api() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - protobuf's, no dictionary

    assert {error.reason for error, *_ in TABLE} == reasons - {"UNSPECIFIED"}
    assert CODES.keys() == reasons - {"UNSPECIFIED"}


def test_the_caller_of_a_call_about_a_tenant_is_told_which_where_the_error_does_not_know() -> None:
    status = status_of(StoreUnavailable("away"), tenant="acme")

    assert info_of(status).metadata["tenant"] == "acme"


def test_the_tenant_that_an_error_names_is_believed() -> None:
    status = status_of(TenantNotFound(tenant="acme"), tenant="other")

    assert info_of(status).metadata["tenant"] == "acme"


@pytest.mark.parametrize(
    ("retry_after", "milliseconds"),
    [
        (timedelta(0), 0),
        (timedelta(seconds=-5), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(milliseconds=1), 1),
        (timedelta(milliseconds=1, microseconds=1), 2),
        (timedelta(hours=1), 3_600_000),
    ],
)
def test_the_delay_is_rounded_up_and_the_trailer_says_the_same(
    retry_after: timedelta, milliseconds: int
) -> None:
    error = ProviderUnavailable("Pleo is away", retry_after=retry_after)

    assert retry_delay(status_of(error)) == timedelta(milliseconds=milliseconds)
    assert pushback_of(error) == str(max(milliseconds, SHORTEST_PUSHBACK))


def test_bad_fields_are_all_named() -> None:
    other = FieldViolation(field="reason", description="must be a reason")

    (bad,) = details(status_of(InvalidRequest([A_VIOLATION, other])), BadRequest)

    named = [(each.field, each.description) for each in bad.field_violations]
    assert named == [("tenant", "must be a tenant"), ("reason", "must be a reason")]


def test_a_status_fits_into_trailers_however_much_is_wrong() -> None:
    """Clients refuse more than 8 KiB of trailers; the message is in them twice."""
    violations = [
        FieldViolation(field=f"scopes[{n}]", description="must be a scope-token, " * 5)
        for n in range(1000)
    ]

    status = status_of(InvalidRequest(violations, tenant="t" * 200))

    (bad,) = details(status, BadRequest)
    assert len(bad.field_violations) == MOST_VIOLATIONS
    assert len(status.message) + status.ByteSize() * 4 / 3 < 8192


def test_whatever_asks_to_wait_is_transient() -> None:
    waiting = [error for error, _, delay, _ in TABLE if delay is not None]

    assert all(isinstance(error, TransientError) for error in waiting)
    assert sum(isinstance(error, TransientError) for error, *_ in TABLE) == len(waiting)
