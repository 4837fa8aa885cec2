"""What fields may hold, at the boundaries, and that a violation gives nothing away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from broker.domain.errors import FieldViolation
from broker.domain.fields import (
    DEFAULT_PAGE,
    LARGEST_PAGE,
    check_access_token,
    check_code,
    check_error_description,
    check_expected_subject,
    check_generation,
    check_oauth_error,
    check_page_size,
    check_reason,
    check_redirect_uri,
    check_refresh_token,
    check_scopes,
    check_session_binding,
    check_state,
    check_tenant,
    settled_page_size,
)

Check: TypeAlias = Callable[[str], FieldViolation | None]

# Unicode's explicit formatting characters (UAX #9 §2), which turn round what follows them.
BIDI_EMBEDDINGS = range(0x202A, 0x202F)
BIDI_ISOLATES = range(0x2066, 0x206A)

GOOD: list[tuple[Check, str]] = [
    (check_tenant, "a"),
    (check_tenant, "AZaz09._:/@-"),
    (check_tenant, "t" * 200),
    (check_expected_subject, "urn:pleo:company:00000000-0000-4000-8000-000000000001"),
    (check_expected_subject, "s" * 200),
    (check_redirect_uri, "https://app.example/callback?tenant=a"),
    (check_redirect_uri, "http://127.0.0.1:8123/callback"),
    (check_redirect_uri, "com.example.app:/callback"),
    (check_redirect_uri, "https://app.example/" + "p" * 1980),
    (check_state, "s"),
    (check_state, "with a space, as RFC 6749 allows ~"),
    (check_code, "c" * 4096),
    (check_oauth_error, "access_denied"),
    (check_oauth_error, "e" * 100),
    (check_error_description, ""),
    (check_error_description, "Zugriff verweigert: kein Häkchen"),
    (check_error_description, "d" * 4096),
    (check_refresh_token, "r" * 16_384),
    (check_access_token, "header.payload.signature+/=~"),
    (check_reason, "x"),
    (check_reason, "Kundin gekündigt, siehe OPS-17 «dringend»"),
    (check_reason, "r" * 500),
    # The neighbours of what is refused: no-break space, and what joins letters.
    (check_reason, "\u2027 \u202f \u2065 \u206a \u200d"),
]

BAD: list[tuple[Check, str]] = [
    (check_tenant, ""),
    (check_tenant, "t" * 201),
    (check_tenant, "acme\n"),
    (check_tenant, "a b"),
    (check_tenant, "ä"),
    (check_expected_subject, ""),
    (check_expected_subject, "  "),
    (check_expected_subject, "s" * 201),
    (check_expected_subject, "urn:pleo:\x00company"),
    (check_redirect_uri, "/callback"),
    (check_redirect_uri, "https:"),
    (check_redirect_uri, "https://app.example/#fragment"),
    (check_redirect_uri, "https://app.example/a b"),
    (check_redirect_uri, "https://app.example/" + "p" * 1981),
    (check_state, ""),
    (check_state, "s" * 4097),
    (check_state, "line\nbreak"),
    (check_code, ""),
    (check_code, "c" * 4097),
    (check_code, "é"),
    (check_oauth_error, ""),
    (check_oauth_error, 'quoted"'),
    (check_oauth_error, "back\\slash"),
    (check_oauth_error, "e" * 101),
    (check_error_description, "d" * 4097),
    (check_error_description, "bell\x07"),
    (check_refresh_token, ""),
    (check_refresh_token, "r" * 16_385),
    (check_refresh_token, "tab\tbed"),
    (check_access_token, "a" * 16_385),
    (check_reason, ""),
    (check_reason, " "),
    (check_reason, "r" * 501),
    (check_reason, "two\nlines"),
    (check_reason, "delete\x7f"),
    (check_reason, "next line\x85"),
    *((check_reason, f"two{separator}lines") for separator in "\u2028\u2029"),
    *((check_reason, f"turned {chr(each)}round") for each in (*BIDI_EMBEDDINGS, *BIDI_ISOLATES)),
    (check_expected_subject, "urn:pleo:\u202ecompany"),
    (check_error_description, "denied\u2066"),
]


@pytest.mark.parametrize(("check", "value"), GOOD)
def test_a_good_value_passes(check: Check, value: str) -> None:
    assert check(value) is None


@pytest.mark.parametrize(("check", "value"), BAD)
def test_a_bad_value_is_named_and_not_repeated(check: Check, value: str) -> None:
    violation = check(value)

    assert violation is not None
    assert violation.description.startswith("must ")
    assert len(value) < 2 or value not in violation.description + violation.field


@pytest.mark.parametrize("size", [16, 17, 128])
def test_a_session_binding_of_16_to_128_bytes_passes(size: int) -> None:
    assert check_session_binding(bytes(size)) is None


@pytest.mark.parametrize("size", [0, 15, 129])
def test_a_session_binding_of_another_size_is_named(size: int) -> None:
    violation = check_session_binding(bytes(size))

    assert violation == FieldViolation(
        field="session_binding", description="must be 16 to 128 bytes"
    )


@pytest.mark.parametrize(
    "scopes",
    [[], ["export-items:read", "!#[]~"], ["s" * 128], [f"scope-{n}" for n in range(100)]],
)
def test_scope_tokens_pass(scopes: list[str]) -> None:
    """RFC 6749 §3.3."""
    assert check_scopes(scopes) == []


def test_every_bad_scope_is_named_by_its_place() -> None:
    """RFC 6749 §3.3: neither blank, quote nor backslash."""
    scopes = ["good", "a b", 'a"b', "a\\b", "", "s" * 129, "ü", "good-too"]

    found = check_scopes(scopes)

    assert [each.field for each in found] == [f"scopes[{n}]" for n in range(1, 7)]


def test_too_many_scopes_are_one_violation_however_bad_each_is() -> None:
    found = check_scopes([""] * 101)

    assert found == [FieldViolation(field="scopes", description="must be at most 100")]


def test_a_field_keeps_the_path_that_it_has_in_the_request() -> None:
    violation = check_tenant("", "tenants[3]")

    assert violation is not None
    assert violation.field == "tenants[3]"


@pytest.mark.parametrize(
    ("page_size", "settled"),
    [(0, DEFAULT_PAGE), (1, 1), (1000, 1000), (1001, LARGEST_PAGE), (2**31 - 1, LARGEST_PAGE)],
)
def test_a_page_size_is_settled(page_size: int, settled: int) -> None:
    assert check_page_size(page_size) is None
    assert settled_page_size(page_size) == settled


def test_a_negative_page_size_is_refused() -> None:
    assert check_page_size(-1) == FieldViolation(
        field="page_size", description="must not be negative"
    )


def test_a_generation_begins_at_one() -> None:
    assert check_generation(1) is None
    assert check_generation(0) is not None
    assert check_generation(-1) is not None
