"""Messages of the API as values. Reads a request whole, and refuses it with all that is wrong.

A field that is empty in proto3's sense is absent. Field paths in violations are the proto's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from broker.domain.errors import FieldViolation, InvalidRequest
from broker.domain.fields import (
    DEFAULT_HISTORY_SIZE,
    LONGEST_PAGE_TOKEN,
    MOST_STATES,
    check_access_token,
    check_batch,
    check_code,
    check_error_description,
    check_expected_subject,
    check_generation,
    check_history_size,
    check_oauth_error,
    check_page_size,
    check_reason,
    check_redirect_uri,
    check_refresh_token,
    check_scopes,
    check_session_binding,
    check_state,
    check_tenant,
    check_watched,
    settled_page_size,
)
from broker.domain.grant import GrantState
from broker.domain.guard import Release
from broker.domain.policy import EVERYBODY, Tenants
from broker.domain.secret import AccessToken, AuthorizationCode, RefreshToken, Secret
from broker.ports import ListQuery
from broker.rpc.paging import read_page_token
from broker.service.messages import (
    AuthorizationDenied,
    AuthorizationResult,
    CompleteAuthorization,
    ImportGrant,
    RefreshGrant,
    RevokeGrant,
    StartAuthorization,
)
from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2

_State = grant_service_pb2.Grant.State

# What a caller who asks for a state means; a held grant is shown as ACTIVE, so it is found as that.
_STATES: Final[dict[int, frozenset[GrantState]]] = {
    _State.STATE_ACTIVE: frozenset({GrantState.ACTIVE, GrantState.HELD}),
    _State.STATE_REAUTH_REQUIRED: frozenset({GrantState.REAUTH_REQUIRED}),
    _State.STATE_REVOKED: frozenset({GrantState.REVOKED}),
}

_Action = operations_service_pb2.ReleaseGuardRequest.Action

_RELEASES: Final[dict[int, Release]] = {
    _Action.ACTION_CONFIRM: Release.CONFIRM,
    _Action.ACTION_DISCARD: Release.DISCARD,
}


def read_tenant(tenant: str) -> str:
    """Reads a request that has nothing else in it.

    Raises:
        InvalidRequest: as every function here, where a field is wrong.
    """
    _refuse(tenant)
    return tenant


def read_get_access_token(
    request: token_service_pb2.GetAccessTokenRequest,
) -> tuple[str, int | None]:
    """Reads the tenant, and which generation Pleo is said to have rejected."""
    tenant = request.tenant
    if not request.HasField("rejected_generation"):
        return read_tenant(tenant), None
    rejected_generation = request.rejected_generation
    _refuse(tenant, check_generation(rejected_generation))
    return tenant, rejected_generation


def read_batch(request: token_service_pb2.BatchGetAccessTokensRequest) -> tuple[str, ...]:
    """Reads whose tokens to return."""
    tenants = tuple(request.tenants)
    _refuse(None, *check_batch(tenants))
    return tenants


def read_watch(
    request: token_service_pb2.WatchAccessTokensRequest,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Reads which tenants to watch, and which no more. Each one's form is the reader's to check."""
    action = request.WhichOneof("action")
    if action is None:
        raise InvalidRequest([_violation("action", "must be subscribe or unsubscribe")])
    tenants = tuple((request.subscribe if action == "subscribe" else request.unsubscribe).tenants)
    _refuse(None, check_watched(len(tenants), f"{action}.tenants"))
    return (tenants, ()) if action == "subscribe" else ((), tenants)


def read_explain_grant(request: operations_service_pb2.ExplainGrantRequest) -> tuple[str, int]:
    """Reads the tenant, and how many lines of each record are wanted at most."""
    size = request.history_size
    _refuse(request.tenant, check_history_size(size))
    return request.tenant, size or DEFAULT_HISTORY_SIZE


def read_start_authorization(
    request: grant_service_pb2.StartAuthorizationRequest, *, caller: str
) -> StartAuthorization:
    """Reads what to begin a consent with."""
    _refuse(
        request.tenant,
        check_session_binding(request.session_binding),
        *check_scopes(request.scopes),
        check_redirect_uri(request.redirect_uri) if request.redirect_uri else None,
        check_expected_subject(request.expected_subject) if request.expected_subject else None,
    )
    return StartAuthorization(
        tenant=request.tenant,
        caller=caller,
        session_binding=request.session_binding,
        scopes=tuple(request.scopes) or None,
        redirect_uri=request.redirect_uri or None,
        expected_subject=request.expected_subject or None,
        allow_subject_change=request.allow_subject_change,
    )


def read_complete_authorization(
    request: grant_service_pb2.CompleteAuthorizationRequest, *, caller: str
) -> CompleteAuthorization:
    """Reads what to complete a consent with."""
    _refuse(
        request.tenant,
        check_state(request.state),
        check_session_binding(request.session_binding),
        *_check_result(request),
    )
    return CompleteAuthorization(
        tenant=request.tenant,
        caller=caller,
        state=request.state,
        session_binding=request.session_binding,
        result=_result(request),
    )


def read_import_grant(request: grant_service_pb2.ImportGrantRequest, *, caller: str) -> ImportGrant:
    """Reads what to take over."""
    _refuse(
        request.tenant,
        check_refresh_token(request.refresh_token),
        check_access_token(request.access_token) if request.access_token else None,
        _check_expire_time(request),
        *check_scopes(request.scopes),
        check_expected_subject(request.expected_subject) if request.expected_subject else None,
    )
    access_token = AccessToken(Secret(request.access_token)) if request.access_token else None
    return ImportGrant(
        tenant=request.tenant,
        caller=caller,
        refresh_token=RefreshToken(Secret(request.refresh_token)),
        replace=request.replace,
        access_token=access_token,
        expires_at=_moment(request.expire_time) if access_token is not None else None,
        scopes=tuple(request.scopes) or None,
        expected_subject=request.expected_subject or None,
    )


def read_list_grants(
    request: grant_service_pb2.ListGrantsRequest, *, tenants: Tenants = EVERYBODY
) -> ListQuery:
    """Reads which page of which list; `tenants`: those that the caller may see."""
    has_time = request.HasField("updated_after_time")
    _refuse(
        None,
        check_page_size(request.page_size),
        *_check_states(request.states),
        _check_time(request.updated_after_time, "updated_after_time") if has_time else None,
    )
    query = ListQuery(
        limit=settled_page_size(request.page_size),
        states=frozenset().union(*(_STATES[state] for state in request.states)),
        updated_after=_moment(request.updated_after_time) if has_time else None,
        tenants=tenants,
    )
    return _from_page(query, request.page_token) if request.page_token else query


def read_revoke_grant(request: grant_service_pb2.RevokeGrantRequest, *, caller: str) -> RevokeGrant:
    """Reads what to end, and why."""
    _refuse(request.tenant, check_reason(request.reason))
    return RevokeGrant(
        tenant=request.tenant,
        caller=caller,
        reason=request.reason,
        at_provider=request.revoke_at_provider,
    )


def read_rewrap_keys(request: operations_service_pb2.RewrapKeysRequest) -> str:
    """Returns why rows are sealed anew; empty where nobody says.

    Raises:
        InvalidRequest: the reason is too long, or has control characters.
    """
    _refuse(None, check_reason(request.reason) if request.reason else None)
    return request.reason


def read_refresh_grant(
    request: operations_service_pb2.RefreshGrantRequest, *, caller: str
) -> RefreshGrant:
    """Reads what to rotate, and why."""
    _refuse(request.tenant, check_reason(request.reason))
    return RefreshGrant(tenant=request.tenant, caller=caller, reason=request.reason)


def read_release_guard(
    request: operations_service_pb2.ReleaseGuardRequest,
) -> tuple[Release, str]:
    """Reads what to make of the refusals, and why."""
    release = _RELEASES.get(request.action)
    expected = "must be one of ACTION_CONFIRM, ACTION_DISCARD"
    bad_action = _violation("action", expected) if release is None else None
    _refuse(None, bad_action, check_reason(request.reason))
    return _RELEASES[request.action], request.reason


def _refuse(tenant: str | None, *found: FieldViolation | None) -> None:
    """Raises all that was found at once; `tenant` None: the request is about no single one."""
    # A malformed one is repeated to nobody: it may be a token in the wrong field (law 7).
    bad_tenant = None if tenant is None else check_tenant(tenant)
    violations = [each for each in (bad_tenant, *found) if each is not None]
    if violations:
        raise InvalidRequest(violations, tenant=tenant if bad_tenant is None else None)


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)


def _check_result(
    request: grant_service_pb2.CompleteAuthorizationRequest,
) -> list[FieldViolation | None]:
    which = request.WhichOneof("result")
    if which is None:
        return [_violation("result", "must be a code or an error")]
    if which == "code":
        return [check_code(request.code)]
    description = check_error_description(request.error.error_description)
    return [check_oauth_error(request.error.error), description]


def _result(request: grant_service_pb2.CompleteAuthorizationRequest) -> AuthorizationResult:
    if request.HasField("code"):
        return AuthorizationCode(Secret(request.code))
    return AuthorizationDenied(
        error=request.error.error, error_description=request.error.error_description
    )


def _check_expire_time(request: grant_service_pb2.ImportGrantRequest) -> FieldViolation | None:
    """Wants the time with the access token, and only with it."""
    if request.HasField("expire_time") != bool(request.access_token):
        return _violation("expire_time", "must be set with an access token, and only then")
    if not request.access_token:
        return None
    return _check_time(request.expire_time, "expire_time")


def _check_states(states: Collection[int]) -> list[FieldViolation]:
    if len(states) > MOST_STATES:
        return [_violation("states", f"must be at most {MOST_STATES}")]
    return [
        _violation(f"states[{index}]", "must be a state that a grant can have")
        for index, state in enumerate(states)
        if state not in _STATES
    ]


def _check_time(time: Timestamp, field: str) -> FieldViolation | None:
    try:
        _moment(time)
    except ValueError:
        return _violation(field, "must be a time between the years 1 and 9999")
    return None


def _moment(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)


def _from_page(query: ListQuery, token: str) -> ListQuery:
    is_short = len(token) <= LONGEST_PAGE_TOKEN
    after_tenant = read_page_token(token, query) if is_short else None
    if after_tenant is None:
        expected = "must be the next_page_token of a list with the same filters"
        raise InvalidRequest([_violation("page_token", expected)])
    return replace(query, after_tenant=after_tenant)
