"""Requests become values, or are refused with all that is wrong at once."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.domain.errors import InvalidRequest
from broker.domain.grant import GrantState
from broker.domain.guard import Release
from broker.domain.secret import AccessToken, AuthorizationCode, RefreshToken, Secret
from broker.ports import ListQuery
from broker.rpc.messages import timestamp
from broker.rpc.paging import page_token, read_page_token
from broker.rpc.validation import (
    read_complete_authorization,
    read_get_access_token,
    read_import_grant,
    read_list_grants,
    read_release_guard,
    read_revoke_grant,
    read_start_authorization,
    read_tenant,
)
from broker.service.messages import (
    AuthorizationDenied,
    CompleteAuthorization,
    ImportGrant,
    RevokeGrant,
    StartAuthorization,
)
from broker.v1.grant_service_pb2 import (
    AuthorizationError,
    CompleteAuthorizationRequest,
    Grant,
    ImportGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.operations_service_pb2 import ReleaseGuardRequest
from broker.v1.token_service_pb2 import GetAccessTokenRequest
from support.grants import THE_NOW

THE_CALLER = "uri:spiffe://example.org/web"
THE_BINDING = b"sixteen bytes ok"
# Beyond the year 9999.
NO_TIME = Timestamp(seconds=253_402_300_800)


def refused(read: Callable[[], object]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read()
    return caught.value


def bad_fields(read: Callable[[], object]) -> list[str]:
    return [violation.field for violation in refused(read).violations]


def test_a_tenant_is_read() -> None:
    assert read_tenant("eu/acme") == "eu/acme"


def test_a_bad_tenant_is_not_repeated_in_the_refusal() -> None:
    error = refused(lambda: read_tenant("not a tenant"))

    assert [each.field for each in error.violations] == ["tenant"]
    assert error.tenant is None
    assert "not a tenant" not in error.message


def test_a_request_for_a_token_is_read() -> None:
    assert read_get_access_token(GetAccessTokenRequest(tenant="acme")) == ("acme", None)


def test_a_reported_generation_is_read() -> None:
    request = GetAccessTokenRequest(tenant="acme", rejected_generation=7)

    assert read_get_access_token(request) == ("acme", 7)


@pytest.mark.parametrize("generation", [0, -1])
def test_a_generation_that_cannot_be_is_refused_also_where_it_is_zero(generation: int) -> None:
    request = GetAccessTokenRequest(tenant="acme", rejected_generation=generation)

    assert bad_fields(lambda: read_get_access_token(request)) == ["rejected_generation"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    request = StartAuthorizationRequest(
        session_binding=b"short",
        scopes=["good", "not good"],
        redirect_uri="/relative",
        expected_subject=" ",
    )

    found = bad_fields(lambda: read_start_authorization(request, caller=THE_CALLER))

    assert found == ["tenant", "session_binding", "scopes[1]", "redirect_uri", "expected_subject"]


def test_a_refusal_names_a_tenant_that_is_well_formed() -> None:
    request = RevokeGrantRequest(tenant="acme")

    error = refused(lambda: read_revoke_grant(request, caller=THE_CALLER))

    assert error.tenant == "acme"
    assert [each.field for each in error.violations] == ["reason"]


def test_the_start_of_an_authorization_is_read() -> None:
    request = StartAuthorizationRequest(
        tenant="acme",
        session_binding=THE_BINDING,
        scopes=["a", "b"],
        redirect_uri="https://app.example/callback",
        expected_subject="urn:pleo:company:1",
        allow_subject_change=True,
    )

    assert read_start_authorization(request, caller=THE_CALLER) == StartAuthorization(
        tenant="acme",
        caller=THE_CALLER,
        session_binding=THE_BINDING,
        scopes=("a", "b"),
        redirect_uri="https://app.example/callback",
        expected_subject="urn:pleo:company:1",
        allow_subject_change=True,
    )


def test_what_a_start_leaves_out_is_left_to_the_settings() -> None:
    request = StartAuthorizationRequest(tenant="acme", session_binding=THE_BINDING)

    assert read_start_authorization(request, caller=THE_CALLER) == StartAuthorization(
        tenant="acme", caller=THE_CALLER, session_binding=THE_BINDING
    )


def test_a_code_is_read() -> None:
    request = CompleteAuthorizationRequest(
        tenant="acme", state="s", session_binding=THE_BINDING, code="fake-code"
    )

    assert read_complete_authorization(request, caller=THE_CALLER) == CompleteAuthorization(
        tenant="acme",
        caller=THE_CALLER,
        state="s",
        session_binding=THE_BINDING,
        result=AuthorizationCode(Secret("fake-code")),
    )


def test_a_denial_is_read() -> None:
    denied = AuthorizationError(error="access_denied", error_description="no")
    request = CompleteAuthorizationRequest(
        tenant="acme", state="s", session_binding=THE_BINDING, error=denied
    )

    read = read_complete_authorization(request, caller=THE_CALLER)

    assert read.result == AuthorizationDenied(error="access_denied", error_description="no")


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (CompleteAuthorizationRequest(), ["result"]),
        (CompleteAuthorizationRequest(code=""), ["code"]),
        (CompleteAuthorizationRequest(error=AuthorizationError()), ["error.error"]),
        (
            CompleteAuthorizationRequest(
                error=AuthorizationError(error='"', error_description="\x00")
            ),
            ["error.error", "error.error_description"],
        ),
    ],
)
def test_a_completion_without_a_good_result_is_refused(
    request_: CompleteAuthorizationRequest, found: list[str]
) -> None:
    missing = ["tenant", "state", "session_binding"]

    assert bad_fields(lambda: read_complete_authorization(request_, caller="")) == [
        *missing,
        *found,
    ]


def test_an_import_is_read() -> None:
    request = ImportGrantRequest(
        tenant="acme",
        refresh_token="fake-refresh",
        replace=True,
        access_token="fake-access",
        expire_time=timestamp(THE_NOW),
        scopes=["a"],
        expected_subject="urn:pleo:company:1",
    )

    assert read_import_grant(request, caller=THE_CALLER) == ImportGrant(
        tenant="acme",
        caller=THE_CALLER,
        refresh_token=RefreshToken(Secret("fake-refresh")),
        replace=True,
        access_token=AccessToken(Secret("fake-access")),
        expires_at=THE_NOW,
        scopes=("a",),
        expected_subject="urn:pleo:company:1",
    )


def test_an_import_of_a_refresh_token_alone_is_read() -> None:
    request = ImportGrantRequest(tenant="acme", refresh_token="fake-refresh")

    assert read_import_grant(request, caller=THE_CALLER) == ImportGrant(
        tenant="acme", caller=THE_CALLER, refresh_token=RefreshToken(Secret("fake-refresh"))
    )


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (ImportGrantRequest(), ["refresh_token"]),
        (ImportGrantRequest(refresh_token="r", access_token="a"), ["expire_time"]),
        (ImportGrantRequest(refresh_token="r", expire_time=Timestamp(seconds=1)), ["expire_time"]),
        (
            ImportGrantRequest(refresh_token="r", access_token="ä", expire_time=NO_TIME),
            ["access_token", "expire_time"],
        ),
        (
            ImportGrantRequest(refresh_token="r", scopes=[""], expected_subject="\n"),
            ["scopes[0]", "expected_subject"],
        ),
    ],
)
def test_an_import_of_something_else_is_refused(
    request_: ImportGrantRequest, found: list[str]
) -> None:
    request_.tenant = "acme"

    assert bad_fields(lambda: read_import_grant(request_, caller=THE_CALLER)) == found


def test_a_refusal_repeats_no_secret() -> None:
    request = ImportGrantRequest(refresh_token="fake-refresh-ü", access_token="fake-access-ü")

    error = refused(lambda: read_import_grant(request, caller=THE_CALLER))

    assert "fake-" not in error.message


def test_a_revocation_is_read() -> None:
    request = RevokeGrantRequest(tenant="acme", reason="OPS-17", revoke_at_provider=True)

    assert read_revoke_grant(request, caller=THE_CALLER) == RevokeGrant(
        tenant="acme", caller=THE_CALLER, reason="OPS-17", at_provider=True
    )


def test_a_list_of_everything_is_read() -> None:
    assert read_list_grants(ListGrantsRequest()) == ListQuery(limit=100)


def test_a_filtered_list_is_read() -> None:
    request = ListGrantsRequest(
        page_size=7,
        states=[Grant.STATE_REAUTH_REQUIRED, Grant.STATE_REVOKED],
        updated_after_time=timestamp(THE_NOW),
    )

    assert read_list_grants(request) == ListQuery(
        limit=7,
        states=frozenset({GrantState.REAUTH_REQUIRED, GrantState.REVOKED}),
        updated_after=THE_NOW,
    )


def test_who_asks_for_active_grants_gets_held_ones_too() -> None:
    read = read_list_grants(ListGrantsRequest(states=[Grant.STATE_ACTIVE]))

    assert read.states == {GrantState.ACTIVE, GrantState.HELD}


def test_a_list_of_what_cannot_be_is_refused() -> None:
    request = ListGrantsRequest(
        page_size=-1,
        states=[Grant.STATE_ACTIVE, Grant.STATE_UNSPECIFIED],
        updated_after_time=NO_TIME,
    )

    found = bad_fields(lambda: read_list_grants(request))

    assert found == ["page_size", "states[1]", "updated_after_time"]


def test_a_state_that_this_version_does_not_know_is_refused() -> None:
    """A newer caller's; proto3 enums are open."""
    request = ListGrantsRequest.FromString(ListGrantsRequest(states=[99]).SerializeToString())  # type: ignore[list-item]

    assert bad_fields(lambda: read_list_grants(request)) == ["states[0]"]


THE_LIST = ListQuery(
    limit=2, states=frozenset({GrantState.ACTIVE, GrantState.HELD}), updated_after=THE_NOW
)
OTHER_LISTS = [
    ListQuery(),
    replace(THE_LIST, states=frozenset({GrantState.ACTIVE})),
    replace(THE_LIST, states=frozenset()),
    replace(THE_LIST, updated_after=None),
    replace(THE_LIST, updated_after=THE_NOW + timedelta(microseconds=1)),
]


def test_a_list_goes_on_where_its_page_ended() -> None:
    request = ListGrantsRequest(
        page_size=2, states=[Grant.STATE_ACTIVE], updated_after_time=timestamp(THE_NOW)
    )
    request.page_token = page_token(THE_LIST, last_tenant="eu/acme")

    assert read_list_grants(request) == replace(THE_LIST, after_tenant="eu/acme")


def test_a_page_may_be_longer_than_the_one_before() -> None:
    token = page_token(THE_LIST, last_tenant="acme")

    assert read_page_token(token, replace(THE_LIST, limit=500)) == "acme"


def test_the_same_list_has_the_same_token_everywhere() -> None:
    """Replicas of one version answer one another's tokens, whatever their hash seeds."""
    query = ListQuery(updated_after=datetime(2026, 3, 1, tzinfo=UTC))

    assert page_token(query, last_tenant="acme") == "AXPY0sHlek8hVy_9pmFjbWU="


@pytest.mark.parametrize("other", OTHER_LISTS)
def test_a_token_is_of_no_use_with_other_filters(other: ListQuery) -> None:
    assert read_page_token(page_token(THE_LIST, last_tenant="acme"), other) is None


def newer(token: str) -> str:
    return base64.urlsafe_b64encode(b"\x02" + base64.urlsafe_b64decode(token)[1:]).decode()


@pytest.mark.parametrize(
    "token",
    [
        "not base64!",
        "ünïcode",
        "AAAA",
        "A",
        page_token(ListQuery(), last_tenant=""),
        page_token(ListQuery(), last_tenant="not a tenant"),
        page_token(ListQuery(), last_tenant="acme")[:-4],
        newer(page_token(ListQuery(), last_tenant="acme")),
        base64.urlsafe_b64encode(
            base64.urlsafe_b64decode(page_token(ListQuery(), last_tenant="a")) + b"\xff"
        ).decode(),
    ],
)
def test_what_is_no_page_token_is_refused(token: str) -> None:
    request = ListGrantsRequest(page_token=token)

    assert bad_fields(lambda: read_list_grants(request)) == ["page_token"]


@pytest.mark.parametrize("release", Release)
def test_a_decision_about_the_guard_is_read_whole(release: Release) -> None:
    action = ReleaseGuardRequest.Action.Value(f"ACTION_{release.value}")

    read = read_release_guard(ReleaseGuardRequest(action=action, reason="OPS-17"))

    assert read == (release, "OPS-17")


def test_every_action_that_the_api_names_can_be_taken() -> None:
    actions = [each for each in ReleaseGuardRequest.Action.values() if each]

    read = {read_release_guard(ReleaseGuardRequest(action=each, reason="x")) for each in actions}

    assert len(read) == len(actions) == 2


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines"])
def test_a_decision_about_the_guard_needs_its_reason(reason: str) -> None:
    request = ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_CONFIRM, reason=reason)

    assert bad_fields(lambda: read_release_guard(request)) == ["reason"]


def test_a_decision_about_the_guard_is_about_no_tenant() -> None:
    error = refused(lambda: read_release_guard(ReleaseGuardRequest()))

    assert [each.field for each in error.violations] == ["action", "reason"]
    assert error.tenant is None
