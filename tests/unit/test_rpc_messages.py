"""Values become messages: every field, and what is absent stays absent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.domain.grant import FailureRecord, GrantState, Reauth, ReauthCause, ScopesSource
from broker.rpc.messages import (
    duration,
    grant_message,
    lasting_part,
    passing_part,
    started_message,
    timestamp,
    token_message,
)
from broker.service.messages import StartedAuthorization
from broker.v1.grant_service_pb2 import Grant
from broker.v1.token_service_pb2 import GetAccessTokenResponse
from support.fake_broker import some_served_token
from support.grants import THE_NOW, some_grant

LATER = THE_NOW + timedelta(minutes=10)


def test_a_token_is_told_with_its_times_twice() -> None:
    message = token_message(some_served_token())

    assert (message.access_token, message.token_type) == ("fake-access-7", "Bearer")
    assert message.expire_time.ToDatetime(tzinfo=UTC) == LATER
    assert message.expires_in.ToTimedelta() == timedelta(minutes=10)
    assert message.reuse_until_time.ToDatetime(tzinfo=UTC) == THE_NOW + timedelta(minutes=8)
    assert message.reuse_for.ToTimedelta() == timedelta(minutes=8, microseconds=1)


def test_a_token_is_told_with_what_it_is_good_for() -> None:
    message = token_message(some_served_token())

    assert list(message.scopes) == ["accounts:read", "export-items:read"]
    assert (message.generation, message.degraded) == (7, False)


def test_a_degraded_token_has_its_spans_set_to_zero_and_not_left_out() -> None:
    served = some_served_token(is_degraded=True, expires_in=timedelta(0), reuse_for=timedelta(0))

    message = token_message(served)

    assert message.degraded
    assert message.HasField("expires_in")
    assert message.HasField("reuse_for")


def test_both_parts_of_an_answer_are_the_whole() -> None:
    served = some_served_token()

    lasting = lasting_part(served)
    passing = passing_part(served.access_token, left=(served.expires_in, served.reuse_for))

    assert GetAccessTokenResponse.FromString(lasting + passing) == token_message(served)
    assert served.access_token.reveal().encode() not in lasting


def test_spans_that_are_over_are_written_over_none() -> None:
    served = some_served_token()

    passing = passing_part(served.access_token, left=(timedelta(0), timedelta(0)))
    message = GetAccessTokenResponse.FromString(lasting_part(served) + passing)

    assert (message.HasField("expires_in"), message.HasField("reuse_for")) == (True, True)
    assert message.expires_in.ToTimedelta() == message.reuse_for.ToTimedelta() == timedelta(0)


def test_a_started_authorization_is_told() -> None:
    started = StartedAuthorization(
        authorization_uri="https://pleo.example/authorize", state="fake-state", expires_at=LATER
    )

    message = started_message(started)

    assert message.authorization_uri == "https://pleo.example/authorize"
    assert message.state == "fake-state"
    assert message.expire_time.ToDatetime(tzinfo=UTC) == LATER


def test_a_grant_is_told_with_all_that_is_known() -> None:
    grant = replace(
        some_grant(scopes_source=ScopesSource.INTROSPECTION, failures=FailureRecord(count=3)),
        last_used_at=THE_NOW - timedelta(minutes=1),
        created_at=THE_NOW - timedelta(days=2),
        updated_at=THE_NOW - timedelta(minutes=4),
    )

    assert grant_message(grant) == Grant(
        tenant="acme",
        state=Grant.STATE_ACTIVE,
        scopes=["accounts:read"],
        scopes_source=Grant.SCOPES_SOURCE_INTROSPECTION,
        subject="urn:pleo:company:00000000-0000-4000-8000-000000000001",
        generation=7,
        expire_time=timestamp(THE_NOW + timedelta(minutes=10)),
        renew_time=timestamp(THE_NOW + timedelta(minutes=8)),
        last_refresh_time=timestamp(THE_NOW - timedelta(minutes=5)),
        last_used_time=timestamp(THE_NOW - timedelta(minutes=1)),
        create_time=timestamp(THE_NOW - timedelta(days=2)),
        update_time=timestamp(THE_NOW - timedelta(minutes=4)),
        consecutive_failures=3,
    )


def test_what_is_not_known_of_a_grant_is_absent() -> None:
    grant = some_grant(expires_at=None, renew_at=None, subject=None, refreshed_at=None)

    told = {field.name for field, _ in grant_message(grant).ListFields()}

    assert told == {"tenant", "state", "scopes", "scopes_source", "generation"}


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (GrantState.ACTIVE, Grant.STATE_ACTIVE),
        (GrantState.HELD, Grant.STATE_ACTIVE),
        (GrantState.REAUTH_REQUIRED, Grant.STATE_REAUTH_REQUIRED),
        (GrantState.REVOKED, Grant.STATE_REVOKED),
    ],
)
def test_a_state_is_told(state: GrantState, told: Grant.State.ValueType) -> None:
    assert grant_message(some_grant(state=state)).state == told


def test_a_tenant_that_was_never_connected_is_no_grant_to_show() -> None:
    with pytest.raises(KeyError):
        grant_message(some_grant(state=GrantState.UNCONNECTED))


@pytest.mark.parametrize("cause", ReauthCause)
def test_why_to_consent_again_is_told(cause: ReauthCause) -> None:
    reauth = Reauth(cause=cause, since=THE_NOW, provider_error="invalid_grant")

    message = grant_message(some_grant(state=GrantState.REAUTH_REQUIRED, reauth=reauth)).reauth

    assert Grant.Reauth.Cause.Name(message.cause) == f"CAUSE_{cause}"
    assert message.since_time.ToDatetime(tzinfo=UTC) == THE_NOW
    assert message.provider_error == "invalid_grant"


def test_a_held_grant_does_not_tell_of_a_refusal_that_is_in_doubt() -> None:
    reauth = Reauth(cause=ReauthCause.EXPIRED_OR_REVOKED, since=THE_NOW)

    message = grant_message(some_grant(state=GrantState.HELD, reauth=reauth))

    assert not message.HasField("reauth")


@pytest.mark.parametrize("state", [GrantState.REAUTH_REQUIRED, GrantState.REVOKED])
def test_nothing_is_planned_for_a_grant_that_serves_no_tokens(state: GrantState) -> None:
    assert not grant_message(some_grant(state=state)).HasField("renew_time")


@pytest.mark.parametrize("source", ScopesSource)
def test_who_says_what_the_scopes_are_is_told(source: ScopesSource) -> None:
    told = grant_message(some_grant(scopes_source=source)).scopes_source

    assert Grant.ScopesSource.Name(told) == f"SCOPES_SOURCE_{source}"


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_a_moment_keeps_its_microseconds(moment: datetime) -> None:
    assert timestamp(moment).ToDatetime(tzinfo=UTC) == moment


@pytest.mark.parametrize(
    "span", [timedelta(0), timedelta(microseconds=1), timedelta(days=40, seconds=3, microseconds=5)]
)
def test_a_span_keeps_its_microseconds(span: timedelta) -> None:
    assert duration(span).ToTimedelta() == span
