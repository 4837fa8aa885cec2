"""What an answer of the token endpoint means: each row of the failures' table, each oddity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.secret import AccessToken, RefreshToken, Secret
from broker.domain.token_response import read_answer

NO_HEADERS: Mapping[str, str] = {}

GOOD: Mapping[str, object] = {
    "access_token": "a-fake-access-token",
    "refresh_token": "a-fake-refresh-token",
    "token_type": "Bearer",
    "expires_in": 900,
    "scope": "export-items:read accounts:read",
}

A_DATE = "Fri, 07 Nov 2025 10:00:00 GMT"
TWO_MINUTES_LATER = "Fri, 07 Nov 2025 10:02:00 GMT"


def read(fields: object, *, status: int = 200) -> Answer:
    return read_answer(status, NO_HEADERS, json.dumps(fields).encode())


def rotated(fields: object, *, status: int = 200) -> Rotated:
    answer = read(fields, status=status)
    assert isinstance(answer, Rotated)
    return answer


def good_but(**changes: object) -> dict[str, object]:
    return {**GOOD, **changes}


def good_without(*names: str) -> dict[str, object]:
    return {name: value for name, value in GOOD.items() if name not in names}


def test_a_good_answer_is_read_whole_and_nothing_about_it_is_odd() -> None:
    assert rotated(GOOD) == Rotated(
        access_token=AccessToken(Secret("a-fake-access-token")),
        refresh_token=RefreshToken(Secret("a-fake-refresh-token")),
        token_type="Bearer",
        expires_in=timedelta(minutes=15),
        scopes=("export-items:read", "accounts:read"),
        flags=(),
    )


# pleo.md's table of failures, row by row


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_token", "invalid_refresh_token"])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_dead_grant_is_refused_whatever_the_4xx(error: str, status: int) -> None:
    assert read({"error": error}, status=status) == Refused(error=error)


@pytest.mark.parametrize(
    "error",
    [
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_request",
        "invalid_scope",
    ],
)
@pytest.mark.parametrize("status", [400, 401])
def test_what_is_wrong_with_our_client_or_request_is_no_refusal(error: str, status: int) -> None:
    assert read({"error": error}, status=status) == Misconfigured(error=error)


@pytest.mark.parametrize("body", [b"", b"slow down", b'{"error": "invalid_grant"}'])
def test_429_is_not_processed_whatever_its_body_says(body: bytes) -> None:
    assert read_answer(429, NO_HEADERS, body) == NotProcessed(code="http_429")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_5xx_is_unknown_even_where_it_names_an_error(status: int) -> None:
    assert read({"error": "invalid_grant"}, status=status) == Unknown(code=f"http_{status}")


@pytest.mark.parametrize("status", [100, 302, 307, 308, 0, 999])
def test_a_status_of_no_class_that_we_read_is_unknown(status: int) -> None:
    assert read({"error": "invalid_grant"}, status=status) == Unknown(code=f"http_{status}")


@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"invalid_grant"', b"{}", b'{"error": ["invalid_grant"]}']
)
def test_an_unreadable_200_or_4xx_is_unknown(status: int, body: bytes) -> None:
    assert read_answer(status, NO_HEADERS, body) == Unknown(code=f"unreadable_{status}")


@pytest.mark.parametrize("status", [200, 400])
def test_an_error_that_we_do_not_know_is_unknown_and_named(status: int) -> None:
    assert read({"error": "server_busy"}, status=status) == Unknown(code="error_server_busy")


def test_a_refusal_with_status_200_is_unknown() -> None:
    assert read({"error": "invalid_grant"}) == Unknown(code="error_invalid_grant")


@pytest.mark.parametrize(
    "error", ["A-fake-Token-42", "x" * 41, "two words", "_", "invalid_grant\n"]
)
def test_an_error_that_is_no_code_is_not_repeated(error: str) -> None:
    assert read({"error": error}, status=400) == Unknown(code="error_odd")


# Store first, complain afterwards


@pytest.mark.parametrize("status", [100, 201, 302, 400, 401, 429, 500, 503])
def test_a_readable_refresh_token_wins_over_any_status(status: int) -> None:
    answer = rotated(GOOD, status=status)

    assert answer.refresh_token == Secret("a-fake-refresh-token")
    assert answer.flags == ("odd_status",)


def test_a_readable_refresh_token_wins_over_an_error() -> None:
    assert rotated(good_but(error="server_error"), status=400).flags == (
        "odd_status",
        "error_present",
    )


@pytest.mark.parametrize("access_token", [None, "", 7, ["a"]])
def test_a_refresh_token_alone_is_kept(access_token: object) -> None:
    answer = rotated(good_but(access_token=access_token))

    assert answer.access_token is None
    assert answer.refresh_token == Secret("a-fake-refresh-token")
    assert answer.flags == ("no_access_token",)


@pytest.mark.parametrize("refresh_token", [None, "", 7, {}])
def test_an_access_token_alone_leaves_the_presented_refresh_token(refresh_token: object) -> None:
    answer = rotated(good_but(refresh_token=refresh_token))

    assert answer.refresh_token is None
    assert answer.access_token == Secret("a-fake-access-token")
    assert answer.flags == ("no_refresh_token",)


@pytest.mark.parametrize("status", [302, 400, 500])
def test_an_access_token_alone_with_another_status_is_unknown(status: int) -> None:
    assert isinstance(read(good_without("refresh_token"), status=status), Unknown)


@pytest.mark.parametrize("token", ["t" * 8192, "+/~= &%", " kept ", "a-føke-token", "a\r\nb\x00"])
def test_a_token_is_kept_letter_for_letter(token: str) -> None:
    answer = rotated(good_but(access_token=token, refresh_token=token))

    assert answer.access_token is not None
    assert answer.refresh_token is not None
    assert answer.access_token.reveal() == answer.refresh_token.reveal() == token


@pytest.mark.parametrize("token", ["a-føke-token", "a\r\nb", "\x7f"])
def test_a_token_of_letters_that_no_token_has_is_flagged(token: str) -> None:
    answer = rotated(good_but(access_token=token, refresh_token=token))

    assert answer.flags == ("odd_access_token", "odd_refresh_token")


def test_a_token_that_cannot_be_encoded_again_is_none() -> None:
    body = b'{"access_token": "a-fake-access-token", "refresh_token": "\\ud800"}'

    answer = read_answer(200, NO_HEADERS, body)

    assert isinstance(answer, Rotated)
    assert answer.refresh_token is None


# Lifetimes, types, scopes


@pytest.mark.parametrize("expires_in", [900, 900.0, "900", "900.0"])
def test_a_lifetime_may_be_any_kind_of_number(expires_in: object) -> None:
    answer = rotated(good_but(expires_in=expires_in))

    assert answer.expires_in == timedelta(minutes=15)
    assert answer.flags == ()


@pytest.mark.parametrize(
    "expires_in",
    [
        *(0, -1, 1e-9, "0", "-900", True, False, [900], {}),
        *("", " 900", "1_000", "९००", "1e3", "Infinity"),
        *(float("nan"), float("inf"), 1e308, 1_762_509_600, 10**400, "9" * 400),
    ],
)
def test_a_lifetime_that_cannot_be_meant_is_none_and_flagged(expires_in: object) -> None:
    answer = rotated(good_but(expires_in=expires_in))

    assert answer.expires_in is None
    assert answer.flags == ("bad_expires_in",)


@pytest.mark.parametrize("fields", [good_without("expires_in"), good_but(expires_in=None)])
def test_a_lifetime_that_is_absent_is_flagged(fields: Mapping[str, object]) -> None:
    answer = rotated(fields)

    assert answer.expires_in is None
    assert answer.flags == ("no_expires_in",)


def test_a_token_type_that_is_absent_is_bearer_and_flagged() -> None:
    answer = rotated(good_without("token_type"))

    assert answer.token_type == "Bearer"
    assert answer.flags == ("no_token_type",)


def test_a_bearer_in_small_letters_is_kept_and_not_odd() -> None:
    answer = rotated(good_but(token_type="bearer"))

    assert answer.token_type == "bearer"
    assert answer.flags == ()


def test_another_token_type_is_kept_and_flagged() -> None:
    answer = rotated(good_but(token_type="DPoP"))

    assert answer.token_type == "DPoP"
    assert answer.flags == ("odd_token_type",)


@pytest.mark.parametrize("token_type", [None, "", 7, "two words", "Bearer\n", "x" * 65])
def test_a_token_type_that_is_none_is_bearer_and_flagged(token_type: object) -> None:
    answer = rotated(good_but(token_type=token_type))

    assert answer.token_type == "Bearer"
    assert answer.flags == ("odd_token_type",)


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [("a:read", ("a:read",)), ("b a b", ("b", "a")), (" a  b ", ("a", "b")), ("", ())],
)
def test_scopes_come_in_order_each_once(scope: str, scopes: tuple[str, ...]) -> None:
    answer = rotated(good_but(scope=scope))

    assert answer.scopes == scopes
    assert answer.flags == ()


@pytest.mark.parametrize("fields", [good_without("scope"), good_but(scope=None)])
def test_silence_about_scopes_is_none_and_not_odd(fields: Mapping[str, object]) -> None:
    answer = rotated(fields)

    assert answer.scopes is None
    assert answer.flags == ()


@pytest.mark.parametrize("scope", [["a:read"], 7, "\ud800"])
def test_scopes_that_are_no_text_are_none_and_flagged(scope: object) -> None:
    answer = rotated(good_but(scope=scope))

    assert answer.scopes is None
    assert answer.flags == ("bad_scope",)


# How long to wait after 429


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        ("1", timedelta(seconds=1)),
        (" 120 ", timedelta(minutes=2)),
        (TWO_MINUTES_LATER, timedelta(minutes=2)),
        ("999999999999", timedelta(days=1)),
        ("Mon, 07 Nov 9999 10:00:00 GMT", timedelta(days=1)),
    ],
)
def test_retry_after_is_seconds_or_a_date(retry_after: str, pause: timedelta) -> None:
    answer = read_answer(429, {"Retry-After": retry_after, "Date": A_DATE}, b"")

    assert answer == NotProcessed(code="http_429", retry_after=pause)


@pytest.mark.parametrize(
    "retry_after",
    [
        *("", "0", "-1", "soon", "1e9", "9" * 400, A_DATE),
        "Fri, 07 Nov 2025 09:00:00 GMT",
        "Fri, 31 Feb 2025 10:00:00 GMT",
        "Fri, 07 Nov 2025 10:02:00",
        "Fri, 07 Nov 2025 99:99:99 GMT",
    ],
)
def test_a_retry_after_that_asks_for_no_pause_is_none(retry_after: str) -> None:
    answer = read_answer(429, {"Retry-After": retry_after, "Date": A_DATE}, b"")

    assert answer == NotProcessed(code="http_429")


@pytest.mark.parametrize("headers", [{}, {"date": "yesterday"}])
def test_a_date_means_nothing_without_the_answers_own(headers: Mapping[str, str]) -> None:
    answer = read_answer(429, {"retry-after": TWO_MINUTES_LATER, **headers}, b"")

    assert answer == NotProcessed(code="http_429")


# Bodies that are barely JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_any_unicode_encoding_is_read(encoding: str) -> None:
    body = json.dumps(GOOD).encode(encoding)

    assert read_answer(200, NO_HEADERS, body) == rotated(GOOD)


def test_stray_bytes_elsewhere_do_not_cost_the_tokens() -> None:
    body = json.dumps(GOOD).encode().replace(b"accounts:read", b"\xff")

    answer = read_answer(200, NO_HEADERS, body)

    assert isinstance(answer, Rotated)
    assert answer.refresh_token == Secret("a-fake-refresh-token")
    assert answer.flags == ("bad_scope",)


def test_a_token_with_stray_bytes_is_none() -> None:
    body = json.dumps(GOOD).encode().replace(b"-refresh-", b"\xff")

    answer = read_answer(200, NO_HEADERS, body)

    assert isinstance(answer, Rotated)
    assert answer.refresh_token is None


def test_of_two_refresh_tokens_the_last_counts() -> None:
    body = b'{"refresh_token": "a-fake-first", "refresh_token": "a-fake-last"}'

    answer = read_answer(200, NO_HEADERS, body)

    assert isinstance(answer, Rotated)
    assert answer.refresh_token == Secret("a-fake-last")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"access_token": "a-fake-access-token", "refr',
        b'{"refresh_token": "a-fake-refr',
        b'{"a": {"refresh_token": "a-fake-refresh-token"',
        b'{"a": 1 "refresh_token": "a-fake-refresh-token"}',
        b'{1: 2, "refresh_token": "a-fake-refresh-token"}',
        b'["refresh_token": "a-fake-refresh-token"]',
        b"\xff\xfe\x00",
        b"\x00\x00\x00{",
    ],
)
def test_what_is_no_json_object_is_unknown(body: bytes) -> None:
    assert read_answer(200, NO_HEADERS, body) == Unknown(code="unreadable_200")


@pytest.mark.parametrize(
    "rest",
    [b"", b", ", b',"scope":', b',"scope": "a b', b"}garbage", b"}" + json.dumps(GOOD).encode()],
)
def test_a_refresh_token_counts_though_the_json_breaks_off_behind_it(rest: bytes) -> None:
    body = b' { "access_token" : "a-fake-access-token", "refresh_token":"a-fake-refresh-token"'

    assert read_answer(200, NO_HEADERS, body + rest) == Rotated(
        access_token=AccessToken(Secret("a-fake-access-token")),
        refresh_token=RefreshToken(Secret("a-fake-refresh-token")),
        token_type="Bearer",
        expires_in=None,
        scopes=None,
        flags=("broken_json", "no_token_type", "no_expires_in"),
    )


@pytest.mark.parametrize("status", [100, 302, 400, 401, 500])
def test_json_that_breaks_off_counts_in_a_success_only(status: int) -> None:
    body = b'{"refresh_token": "a-fake-refresh-token", "error": "invalid_grant"'

    assert isinstance(read_answer(status, NO_HEADERS, body), Unknown)


def test_a_lifetime_that_was_cut_off_is_none() -> None:
    answer = read_answer(200, NO_HEADERS, b'{"refresh_token": "a-fake-token", "expires_in": 36')

    assert isinstance(answer, Rotated)
    assert answer.expires_in is None


def test_a_number_of_ten_thousand_digits_costs_no_token() -> None:
    body = b'{"expires_in": ' + b"9" * 10_000 + b', "refresh_token": "a-fake-token"}'

    answer = read_answer(200, NO_HEADERS, body)

    assert isinstance(answer, Rotated)
    assert answer.flags == ("no_access_token", "no_token_type", "bad_expires_in")


# Whatever comes

A_TOKEN = st.text("abcXYZ019-._~+/=", min_size=12)
A_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | A_TOKEN,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
A_NAME = st.sampled_from([*GOOD, "error", "error_description"])
A_STATUS = st.integers(min_value=-1, max_value=1000)
A_HEADER = st.dictionaries(st.sampled_from(["Retry-After", "Date"]), st.text())


@given(A_STATUS, A_HEADER, st.binary())
def test_no_bytes_make_it_raise(status: int, headers: dict[str, str], body: bytes) -> None:
    repr(read_answer(status, headers, body))


@given(A_STATUS, st.dictionaries(A_NAME, A_VALUE), st.booleans())
def test_no_fields_make_it_raise(status: int, fields: dict[str, object], is_cut: bool) -> None:  # noqa: FBT001 - hypothesis passes by position
    body = json.dumps(fields).encode()

    repr(read_answer(status, NO_HEADERS, body[:-1] if is_cut else body))


@given(A_STATUS, A_TOKEN, st.sets(A_NAME.filter(lambda name: name not in {"scope", "token_type"})))
def test_no_token_shows_wherever_it_stands(status: int, token: str, names: set[str]) -> None:
    shown = f"A-fake-Token-42{token}"

    assert shown not in repr(read(dict.fromkeys(names, shown), status=status))


@given(A_STATUS, A_TOKEN, st.dictionaries(A_NAME, A_VALUE))
def test_a_refresh_token_is_never_lost(status: int, token: str, fields: dict[str, object]) -> None:
    answer = rotated({**fields, "refresh_token": token}, status=status)

    assert answer.refresh_token == Secret(token)
