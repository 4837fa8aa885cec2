"""Every field of every request, the rule that it has, and values that break it.

A field that is added to the API has no row here, and fails the first test until somebody has said
what it may hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.domain.errors import InvalidRequest
from broker.rpc.validation import (
    read_batch,
    read_complete_authorization,
    read_explain_grant,
    read_get_access_token,
    read_import_grant,
    read_list_grants,
    read_refresh_grant,
    read_release_guard,
    read_revoke_grant,
    read_rewrap_keys,
    read_start_authorization,
    read_tenant,
    read_watch,
)
from broker.v1.grant_service_pb2 import (
    AuthorizationError,
    CompleteAuthorizationRequest,
    GetGrantRequest,
    ImportGrantRequest,
    ListGrantsRequest,
    RevokeGrantRequest,
    StartAuthorizationRequest,
)
from broker.v1.operations_service_pb2 import (
    ExplainGrantRequest,
    RefreshGrantRequest,
    ReleaseGuardRequest,
    RewrapKeysRequest,
)
from broker.v1.token_service_pb2 import (
    BatchGetAccessTokensRequest,
    GetAccessTokenRequest,
    WatchAccessTokensRequest,
)
from support.api import fields

A_BINDING = b"sixteen bytes ok"
A_TIME = Timestamp(seconds=1_800_000_000)

NO_TENANTS = ["", "a" * 201, "a b", "a\0", "ä", "a\n", "a*", "a?", "a|b", "\u202e"]
NO_BINDINGS = [b"", b"x" * 15, b"x" * 129]
NO_SCOPES = [["a"] * 101, [""], ["a b"], ['"'], ["a\0"], ["ä"], ["a" * 129]]
NO_URIS = [
    "/relative",
    "x",
    "https://a/#b",
    "https://a/ b",
    "https://a/\0",
    "https://a/" + "b" * 2000,
]
NO_SUBJECTS = [" ", "a" * 201, "a\0", "a\nb", "a\u202eb", "a\x7f"]
NO_CODES = ["", "a" * 4097, "a\0", "ä", "a\n"]
NO_TOKENS = ["", "a" * 16_385, "a\0", "ä", "a\n"]
NO_REASONS = ["", " ", "a" * 501, "a\0", "a\nb", "a\u2028b", "a\u202eb"]
NO_TIMES = [
    Timestamp(seconds=253_402_300_800),
    Timestamp(seconds=-62_135_596_801),
    Timestamp(seconds=1, nanos=-1),
    Timestamp(seconds=1, nanos=1_000_000_000),
]

BAD: Final[dict[str, list[Any]]] = {
    "GetAccessTokenRequest.tenant": NO_TENANTS,
    "GetAccessTokenRequest.rejected_generation": [0, -1, -(2**63)],
    "StartAuthorizationRequest.tenant": NO_TENANTS,
    "StartAuthorizationRequest.session_binding": NO_BINDINGS,
    "StartAuthorizationRequest.scopes": NO_SCOPES,
    "StartAuthorizationRequest.redirect_uri": NO_URIS,
    "StartAuthorizationRequest.expected_subject": NO_SUBJECTS,
    "CompleteAuthorizationRequest.tenant": NO_TENANTS,
    "CompleteAuthorizationRequest.state": NO_CODES,
    "CompleteAuthorizationRequest.session_binding": NO_BINDINGS,
    "CompleteAuthorizationRequest.code": NO_CODES,
    "CompleteAuthorizationRequest.error": [
        AuthorizationError(),
        AuthorizationError(error="ä"),
        AuthorizationError(error="a" * 101),
        AuthorizationError(error="a\0"),
        AuthorizationError(error="a", error_description="a" * 4097),
        AuthorizationError(error="a", error_description="a\0"),
    ],
    "ImportGrantRequest.tenant": NO_TENANTS,
    "ImportGrantRequest.refresh_token": NO_TOKENS,
    "ImportGrantRequest.access_token": [each for each in NO_TOKENS if each],
    "ImportGrantRequest.expire_time": NO_TIMES,
    "ImportGrantRequest.scopes": NO_SCOPES,
    "ImportGrantRequest.expected_subject": NO_SUBJECTS,
    "GetGrantRequest.tenant": NO_TENANTS,
    "ListGrantsRequest.page_size": [-1, -(2**31)],
    "ListGrantsRequest.page_token": ["x", "ä", "\0", "AAAA", "A" * 100_000],
    "ListGrantsRequest.states": [[0], [1, 0], [1] * 101],
    "ListGrantsRequest.updated_after_time": NO_TIMES,
    "RevokeGrantRequest.tenant": NO_TENANTS,
    "RevokeGrantRequest.reason": NO_REASONS,
    "BatchGetAccessTokensRequest.tenants": [
        [],
        ["a"] * 2,
        [f"t-{number}" for number in range(101)],
        *([each] for each in NO_TENANTS),
    ],
    "WatchAccessTokensRequest.subscribe": [
        WatchAccessTokensRequest.Subscribe(),
        WatchAccessTokensRequest.Subscribe(tenants=["a"] * 1001),
    ],
    "WatchAccessTokensRequest.unsubscribe": [
        WatchAccessTokensRequest.Unsubscribe(),
        WatchAccessTokensRequest.Unsubscribe(tenants=["a"] * 1001),
    ],
    "RefreshGrantRequest.tenant": NO_TENANTS,
    "RefreshGrantRequest.reason": NO_REASONS,
    "ExplainGrantRequest.tenant": NO_TENANTS,
    "ExplainGrantRequest.history_size": [-1, 201, -(2**31)],
    "RewrapKeysRequest.reason": [each for each in NO_REASONS if each],
    "ReleaseGuardRequest.action": [0],
    "ReleaseGuardRequest.reason": NO_REASONS,
}

# A switch is good whatever it holds.
SWITCHES = {
    "StartAuthorizationRequest.allow_subject_change",
    "ImportGrantRequest.replace",
    "RevokeGrantRequest.revoke_at_provider",
    "RewrapKeysRequest.validate_only",
}

# Within `CompleteAuthorizationRequest.error`.
PARTS = {"AuthorizationError.error", "AuthorizationError.error_description"}

# Within the actions of a watch, whose tenants are told one by one in the stream.
PARTS |= {
    "WatchAccessTokensRequest.Subscribe.tenants",
    "WatchAccessTokensRequest.Unsubscribe.tenants",
}

Read: TypeAlias = Callable[[Any], object]

GOOD: Final[dict[str, tuple[Message, Read]]] = {
    "GetAccessTokenRequest": (GetAccessTokenRequest(tenant="acme"), read_get_access_token),
    "StartAuthorizationRequest": (
        StartAuthorizationRequest(tenant="acme", session_binding=A_BINDING),
        lambda request: read_start_authorization(request, caller="x"),
    ),
    "CompleteAuthorizationRequest": (
        CompleteAuthorizationRequest(
            tenant="acme", state="s", session_binding=A_BINDING, code="fake-code"
        ),
        lambda request: read_complete_authorization(request, caller="x"),
    ),
    "ImportGrantRequest": (
        ImportGrantRequest(
            tenant="acme",
            refresh_token="fake-refresh",
            access_token="fake-access",
            expire_time=A_TIME,
        ),
        lambda request: read_import_grant(request, caller="x"),
    ),
    "GetGrantRequest": (
        GetGrantRequest(tenant="acme"),
        lambda request: read_tenant(request.tenant),
    ),
    "ListGrantsRequest": (ListGrantsRequest(), read_list_grants),
    "RevokeGrantRequest": (
        RevokeGrantRequest(tenant="acme", reason="because"),
        lambda request: read_revoke_grant(request, caller="x"),
    ),
    "BatchGetAccessTokensRequest": (BatchGetAccessTokensRequest(tenants=["acme"]), read_batch),
    "WatchAccessTokensRequest": (
        WatchAccessTokensRequest(subscribe=WatchAccessTokensRequest.Subscribe(tenants=["acme"])),
        read_watch,
    ),
    "RefreshGrantRequest": (
        RefreshGrantRequest(tenant="acme", reason="because"),
        lambda request: read_refresh_grant(request, caller="x"),
    ),
    "ExplainGrantRequest": (ExplainGrantRequest(tenant="acme"), read_explain_grant),
    "RewrapKeysRequest": (RewrapKeysRequest(reason="because"), read_rewrap_keys),
    "ReleaseGuardRequest": (
        ReleaseGuardRequest(action=ReleaseGuardRequest.ACTION_CONFIRM, reason="because"),
        read_release_guard,
    ),
}


def requested() -> set[str]:
    """Returns the fields that callers write, by their names."""
    return {name for name in fields() if name.split(".")[0].endswith(("Request", "Error"))}


def with_field(request: Message, field: str, value: object) -> Message:
    """Returns a copy with another value in one field."""
    changed = type(request)()
    changed.CopyFrom(request)
    changed.ClearField(field)
    changed.MergeFrom(type(request)(**{field: value}))
    return changed


def test_every_field_of_every_request_has_a_rule() -> None:
    assert requested() == BAD.keys() | SWITCHES | PARTS


@pytest.mark.parametrize("message", GOOD)
def test_a_good_request_breaks_no_rule(message: str) -> None:
    request, read = GOOD[message]

    assert read(request) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")
        for name, values in BAD.items()
        for number, value in enumerate(values)
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_its_field(name: str, value: object) -> None:
    message, _, field = name.partition(".")
    request, read = GOOD[message]

    with pytest.raises(InvalidRequest) as caught:
        read(with_field(request, field, value))

    (violation,) = caught.value.violations
    assert violation.field.startswith(field)
