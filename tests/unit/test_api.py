"""The API is what callers were promised, and says of itself what they must know.

`PROMISED` and its neighbours repeat what callers know of the API by heart: they may grow, and
nothing leaves them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from broker.domain.errors import BrokerError
from support.api import api, behaviors, calls, fields, reasons

GRANT = ["Grant grant"]

PROMISED = {
    "TokenService/GetAccessToken": (
        ["string tenant", "optional int64 rejected_generation"],
        [
            "string access_token",
            "string token_type",
            "Timestamp expire_time",
            "Duration expires_in",
            "Timestamp reuse_until_time",
            "Duration reuse_for",
            "repeated string scopes",
            "int64 generation",
            "bool degraded",
        ],
    ),
    "TokenService/BatchGetAccessTokens": (["repeated string tenants"], ["repeated Result results"]),
    "TokenService/WatchAccessTokens": (
        ["oneof action Subscribe subscribe", "oneof action Unsubscribe unsubscribe"],
        [
            "string tenant",
            "oneof event GetAccessTokenResponse token",
            "oneof event Status status",
            "oneof event Heartbeat heartbeat",
        ],
    ),
    "GrantService/StartAuthorization": (
        [
            "string tenant",
            "bytes session_binding",
            "repeated string scopes",
            "string redirect_uri",
            "string expected_subject",
            "bool allow_subject_change",
        ],
        ["string authorization_uri", "string state", "Timestamp expire_time"],
    ),
    "GrantService/CompleteAuthorization": (
        [
            "string tenant",
            "string state",
            "bytes session_binding",
            "oneof result string code",
            "oneof result AuthorizationError error",
        ],
        GRANT,
    ),
    "GrantService/ImportGrant": (
        [
            "string tenant",
            "string refresh_token",
            "bool replace",
            "string access_token",
            "Timestamp expire_time",
            "repeated string scopes",
            "string expected_subject",
        ],
        GRANT,
    ),
    "GrantService/GetGrant": (["string tenant"], GRANT),
    "GrantService/ListGrants": (
        [
            "int32 page_size",
            "string page_token",
            "repeated State states",
            "Timestamp updated_after_time",
        ],
        ["repeated Grant grants", "string next_page_token"],
    ),
    "GrantService/RevokeGrant": (
        ["string tenant", "string reason", "bool revoke_at_provider"],
        GRANT,
    ),
    "OperationsService/RefreshGrant": (["string tenant", "string reason"], GRANT),
    "OperationsService/ExplainGrant": (
        ["string tenant"],
        [
            *GRANT,
            "repeated RefreshAttempt attempts",
            "repeated GrantEvent events",
            "Lease lease",
            "repeated Disclosure disclosures",
            "NextStep next_step",
            "string story",
        ],
    ),
    "OperationsService/GetFleetStatus": (
        [],
        [
            "repeated Dependency dependencies",
            "GrantCounts grant_counts",
            "Breaker breaker",
            "Guard guard",
            "OverdueRenewals overdue_renewals",
        ],
    ),
    "OperationsService/ReleaseGuard": (["Action action", "string reason"], []),
    "OperationsService/RewrapKeys": ([], ["int64 total_count", "int64 rewrapped_count"]),
}

PROMISED_MESSAGES = {
    "Grant": [
        "string tenant",
        "State state",
        "Reauth reauth",
        "repeated string scopes",
        "ScopesSource scopes_source",
        "string subject",
        "int64 generation",
        "Timestamp expire_time",
        "Timestamp renew_time",
        "Timestamp last_refresh_time",
        "Timestamp last_used_time",
        "Timestamp create_time",
        "Timestamp update_time",
        "int32 consecutive_failures",
    ],
    "Grant.Reauth": ["Cause cause", "Timestamp since_time", "string provider_error"],
    "AuthorizationError": ["string error", "string error_description"],
    "BatchGetAccessTokensResponse.Result": [
        "string tenant",
        "oneof result GetAccessTokenResponse token",
        "oneof result Status status",
    ],
    "RefreshAttempt": [
        "Timestamp start_time",
        "string replica",
        "int64 generation",
        "Outcome outcome",
        "optional int32 provider_status",
        "string provider_error",
        "Duration duration",
    ],
}

PROMISED_VALUES = {
    "Grant.State": ["STATE_ACTIVE", "STATE_REAUTH_REQUIRED", "STATE_REVOKED"],
    "Grant.Reauth.Cause": [
        "CAUSE_EXPIRED_OR_REVOKED",
        "CAUSE_ROTATION_LOST",
        "CAUSE_OPERATOR",
    ],
    "ReleaseGuardRequest.Action": ["ACTION_CONFIRM", "ACTION_DISCARD"],
}

STREAMS = {
    "TokenService/WatchAccessTokens": (True, True),
    "OperationsService/RewrapKeys": (False, True),
}

CODES = {
    "REAUTH_REQUIRED": "FAILED_PRECONDITION",
    "TENANT_NOT_FOUND": "NOT_FOUND",
    "AUTHORIZATION_STATE_INVALID": "FAILED_PRECONDITION",
    "CONSENT_DENIED": "FAILED_PRECONDITION",
    "CODE_REJECTED": "FAILED_PRECONDITION",
    "EXCHANGE_OUTCOME_UNKNOWN": "FAILED_PRECONDITION",
    "SUBJECT_MISMATCH": "FAILED_PRECONDITION",
    "SUBJECT_ALREADY_CONNECTED": "FAILED_PRECONDITION",
    "REFRESH_TOKEN_REJECTED": "FAILED_PRECONDITION",
    "SCOPE_MISSING": "FAILED_PRECONDITION",
    "CALLER_UNAUTHENTICATED": "UNAUTHENTICATED",
    "CALLER_NOT_ALLOWED": "PERMISSION_DENIED",
    "CALLER_RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "PROVIDER_UNAVAILABLE": "UNAVAILABLE",
    "PROVIDER_REJECTED_CLIENT": "INTERNAL",
    "REFRESH_OUTCOME_UNKNOWN": "UNAVAILABLE",
    "REFRESH_IN_PROGRESS": "UNAVAILABLE",
    "GRANT_HELD": "UNAVAILABLE",
    "STORE_UNAVAILABLE": "UNAVAILABLE",
    "KEY_UNAVAILABLE": "UNAVAILABLE",
    "RECORD_UNREADABLE": "DATA_LOSS",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "INTERNAL_ERROR": "INTERNAL",
}

SECRETS = {
    "access_token",
    "authorization_uri",
    "code",
    "refresh_token",
    "session_binding",
}

# What a call's comment says, in this order, a paragraph each (AIP-192).
PARAGRAPHS = re.compile(
    r"\S.*?\n\n May be called by .*?\n\n (Idempotent|Not idempotent).*?\n\n Waits for .*?\n\n"
    r" Errors: .*",
    re.DOTALL,
)


def shape(field: FieldDescriptorProto, oneofs: list[str]) -> str:
    """Returns a field as the tables above write it."""
    scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = field.type_name.rpartition(".")[2] or scalar
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {kind} {field.name}"
    if field.proto3_optional:
        return f"optional {kind} {field.name}"
    return f"{oneof(field, oneofs)}{kind} {field.name}"


def oneof(field: FieldDescriptorProto, oneofs: list[str]) -> str:
    return f"oneof {oneofs[field.oneof_index]} " if field.HasField("oneof_index") else ""


def shapes(message: str) -> list[str]:
    """Returns the fields of a message of the API, in their order."""
    (found,) = [each.what for each in api() if each.name == message]
    oneofs = [each.name for each in getattr(found, "oneof_decl", [])]
    return [shape(field, oneofs) for field in getattr(found, "field", [])]


def test_every_promised_call_is_there_with_its_own_request_and_response() -> None:
    found = {name: (what.input_type, what.output_type) for name, (_, what) in calls().items()}
    own = {name: f".broker.v1.{name.partition('/')[2]}" for name in PROMISED}

    assert found == {name: (f"{stem}Request", f"{stem}Response") for name, stem in own.items()}


def test_calls_stream_where_that_was_promised_and_nowhere_else() -> None:
    found = {
        name: (what.client_streaming, what.server_streaming) for name, (_, what) in calls().items()
    }

    assert found == dict.fromkeys(found, (False, False)) | STREAMS


@pytest.mark.parametrize("name", PROMISED)
def test_every_promised_field_of_a_call_is_there(name: str) -> None:
    stem = name.partition("/")[2]
    wanted, answered = PROMISED[name]

    assert set(wanted) - set(shapes(f"{stem}Request")) == set()
    assert set(answered) - set(shapes(f"{stem}Response")) == set()


@pytest.mark.parametrize("name", PROMISED_MESSAGES)
def test_every_promised_field_of_a_message_is_there(name: str) -> None:
    assert set(PROMISED_MESSAGES[name]) - set(shapes(name)) == set()


@pytest.mark.parametrize("name", PROMISED_VALUES)
def test_every_promised_value_of_an_enum_is_there(name: str) -> None:
    found = {each.name for each in api()}

    assert {f"{name}.{value}" for value in PROMISED_VALUES[name]} - found == set()


def raised(root: type[BrokerError] = BrokerError) -> Iterator[str]:
    """Gives the reasons of all errors of the domain."""
    if "reason" in vars(root):
        yield root.reason
    for derived in root.__subclasses__():
        yield from raised(derived)


def test_every_error_of_the_domain_has_its_reason_in_the_api_and_no_other_is_there() -> None:
    assert sorted(raised()) == sorted(reasons())


def test_every_reason_tells_its_code_and_an_example() -> None:
    told = {name: re.findall(r"Code ([A-Z_]+)", each.words) for name, each in reasons().items()}

    assert told == {name: [code] for name, code in CODES.items()}


@pytest.mark.parametrize("name", CODES)
def test_the_example_of_a_reason_is_an_error_info(name: str) -> None:
    example = re.search(r"Example: `(\{.*?\})`", reasons()[name].words)

    assert example is not None
    info = json.loads(example[1])
    assert (info["reason"], info["domain"]) == (name, "pleo-token-broker")
    assert info["metadata"]["tenant"] == "acme"


@pytest.mark.parametrize("name", PROMISED)
def test_the_comment_of_a_call_says_what_who_whether_again_how_long_and_errors(name: str) -> None:
    element, _ = calls()[name]

    assert PARAGRAPHS.fullmatch(element.comment.strip())
    assert f"`{name}`" in element.comment or "started the authorization" in element.comment
    named = re.findall(r"\b[A-Z]+_[A-Z_]+\b", element.words.partition("Errors:")[2])
    assert {each for each in named if not each.startswith("BROKER_")} <= reasons().keys()


def test_the_first_words_of_a_fields_comment_and_its_behavior_say_the_same() -> None:
    opened = {name: each.words.partition(".")[0] for name, (each, _) in fields().items()}

    said = {name: " ".join(behaviors(what)) for name, (_, what) in fields().items()}

    assert {name: words.upper().replace(" ", "_") for name, words in opened.items()} == said


def test_only_requests_can_be_written() -> None:
    behavior = {name: behaviors(what) for name, (_, what) in fields().items()}
    requested = [name for name, found in behavior.items() if found != ["OUTPUT_ONLY"]]

    others = [name for name in requested if not re.match(r"\w+Request\.|AuthorizationError", name)]

    assert others == []


def test_times_are_timestamps_named_time_and_spans_are_durations() -> None:
    kinds = {name: what.type_name.rpartition(".")[2] for name, (_, what) in fields().items()}

    misnamed = [n for n, kind in kinds.items() if (kind == "Timestamp") != n.endswith("_time")]

    assert misnamed == []
    assert [name for name in kinds if re.search(r"_(seconds|minutes|ms|millis|ttl)$", name)] == []


def test_no_response_has_a_refresh_token() -> None:
    having = [name for name in fields() if "refresh_token" in name]

    assert having == ["ImportGrantRequest.refresh_token"]


def test_every_secret_is_marked_so_that_it_is_not_printed() -> None:
    states = {"StartAuthorizationResponse.state", "CompleteAuthorizationRequest.state"}
    secret = {name for name in fields() if name.rpartition(".")[2] in SECRETS} | states

    marked = {name for name, (_, what) in fields().items() if what.options.debug_redact}

    assert marked == secret
