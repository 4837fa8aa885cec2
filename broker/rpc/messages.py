"""Values as messages of the API. What is absent in a value is an absent field.

This and `validation.py` are the two places where our `expires_at` and the API's `expire_time` meet,
and the one where an access token leaves on purpose (law 7).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from broker.domain.grant import Grant, GrantState, Reauth, ReauthCause, ScopesSource
from broker.domain.secret import AccessToken, Secret
from broker.service.messages import ServedToken, StartedAuthorization
from broker.v1 import grant_service_pb2, token_service_pb2

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_TOKEN: Final = AccessToken(Secret(""))
_SECONDS_A_DAY: Final = 86_400

_State = grant_service_pb2.Grant.State
_Cause = grant_service_pb2.Grant.Reauth.Cause
_Source = grant_service_pb2.Grant.ScopesSource

# UNCONNECTED is missing on purpose: such a row is no grant, and to show one is a defect.
_STATES: Final = {
    GrantState.ACTIVE: _State.STATE_ACTIVE,
    # Callers can do nothing about our doubts; to them it is the grant that it was.
    GrantState.HELD: _State.STATE_ACTIVE,
    GrantState.REAUTH_REQUIRED: _State.STATE_REAUTH_REQUIRED,
    GrantState.REVOKED: _State.STATE_REVOKED,
}

_CAUSES: Final = {
    ReauthCause.EXPIRED_OR_REVOKED: _Cause.CAUSE_EXPIRED_OR_REVOKED,
    ReauthCause.ROTATION_LOST: _Cause.CAUSE_ROTATION_LOST,
    ReauthCause.OPERATOR: _Cause.CAUSE_OPERATOR,
}

_SOURCES: Final = {
    ScopesSource.REQUESTED: _Source.SCOPES_SOURCE_REQUESTED,
    ScopesSource.TOKEN_RESPONSE: _Source.SCOPES_SOURCE_TOKEN_RESPONSE,
    ScopesSource.INTROSPECTION: _Source.SCOPES_SOURCE_INTROSPECTION,
    ScopesSource.IMPORTED: _Source.SCOPES_SOURCE_IMPORTED,
}


def token_message(served: ServedToken) -> token_service_pb2.GetAccessTokenResponse:
    """Returns the answer to GetAccessToken.

    Times are filled in where they lie: messages made to be copied into this one cost as much as all
    the rest of it, and it is on the way of every token.
    """
    message = token_service_pb2.GetAccessTokenResponse(
        access_token=served.access_token.reveal(),
        token_type=served.token_type,
        scopes=served.scopes,
        generation=served.generation,
        degraded=served.is_degraded,
    )
    _fill(message.expire_time, served.expires_at - _EPOCH)
    _fill(message.expires_in, served.expires_in)
    _fill(message.reuse_until_time, served.reuse_until - _EPOCH)
    _fill(message.reuse_for, served.reuse_for)
    return message


def lasting_part(served: ServedToken) -> bytes:
    """Returns what is the same in all answers with this token, but for the token itself.

    Encoded, and to be completed by a `passing_part`: messages that are written one after the other
    are one (protobuf's merging), so what has not changed is not written again.
    """
    message = token_message(replace(served, access_token=_NO_TOKEN))
    message.ClearField("expires_in")
    message.ClearField("reuse_for")
    return message.SerializeToString()


def passing_part(access_token: AccessToken, *, left: tuple[timedelta, timedelta]) -> bytes:
    """Returns the rest of an answer: the token, and for how long it lives and is kept from now."""
    message = token_service_pb2.GetAccessTokenResponse(access_token=access_token.reveal())
    expires_in, reuse_for = left
    _fill(message.expires_in, expires_in)
    _fill(message.reuse_for, reuse_for)
    return message.SerializeToString()


def started_message(
    started: StartedAuthorization,
) -> grant_service_pb2.StartAuthorizationResponse:
    """Returns the answer to StartAuthorization."""
    return grant_service_pb2.StartAuthorizationResponse(
        authorization_uri=started.authorization_uri,
        state=started.state,
        expire_time=timestamp(started.expires_at),
    )


def grant_message(grant: Grant) -> grant_service_pb2.Grant:
    """Returns a grant as callers see it."""
    state = _STATES[grant.state]
    is_active = state == _State.STATE_ACTIVE
    return grant_service_pb2.Grant(
        tenant=grant.tenant,
        state=state,
        reauth=_reauth_message(grant),
        scopes=grant.scopes,
        scopes_source=_SOURCES[grant.scopes_source],
        subject=grant.subject or "",
        generation=grant.generation,
        expire_time=_timestamp_or_none(grant.expires_at),
        renew_time=_timestamp_or_none(grant.renew_at if is_active else None),
        last_refresh_time=_timestamp_or_none(grant.refreshed_at),
        last_used_time=_timestamp_or_none(grant.last_used_at),
        create_time=_timestamp_or_none(grant.created_at),
        update_time=_timestamp_or_none(grant.updated_at),
        consecutive_failures=grant.failures.count,
    )


def timestamp(moment: datetime) -> Timestamp:
    """Returns a moment to the microsecond. A third of what `Timestamp.FromDatetime` costs."""
    since = moment - _EPOCH
    seconds = since.days * _SECONDS_A_DAY + since.seconds
    return Timestamp(seconds=seconds, nanos=since.microseconds * 1000)


def duration(span: timedelta) -> Duration:
    """Returns a span that is not negative, to the microsecond."""
    seconds = span.days * _SECONDS_A_DAY + span.seconds
    return Duration(seconds=seconds, nanos=span.microseconds * 1000)


def _fill(field: Timestamp | Duration, span: timedelta) -> None:
    """Sets a time within a message, to the microsecond; a zero that is set is there (proto3)."""
    field.seconds = span.days * _SECONDS_A_DAY + span.seconds
    field.nanos = span.microseconds * 1000


def _timestamp_or_none(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else timestamp(moment)


def _reauth_message(grant: Grant) -> grant_service_pb2.Grant.Reauth | None:
    """Returns why to consent again; only where the caller is told to, not while it is held."""
    reauth: Reauth | None = grant.reauth
    if reauth is None or grant.state is not GrantState.REAUTH_REQUIRED:
        return None
    return grant_service_pb2.Grant.Reauth(
        cause=_CAUSES[reauth.cause],
        since_time=timestamp(reauth.since),
        provider_error=reauth.provider_error,
    )
