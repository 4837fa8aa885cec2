"""What a field of a request may hold: its form, never whether it means anything.

Each check returns what is wrong with a value, or None. Laws of this file:

1. A violation says what was expected and never repeats the value, which may be a secret (law 7) or
   a megabyte.
2. Whatever passes can be stored as text and shown on one line: no control characters, no line or
   paragraph separators, nothing that turns text round (UAX #9), a bounded length.
3. Whether a tenant exists, or a redirect URI is registered, is asked elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from broker.domain.errors import FieldViolation

LONGEST_TENANT: Final = 200
"""Characters; the contract with callers."""

LARGEST_BATCH: Final = 100
"""Tenants; with tokens as long as they may be, an answer stays within gRPC's default 4 MiB."""

MOST_WATCHED: Final = 1000
"""Tenants in one message: 200,000 bytes of them would be refused as too large in any case."""

SHORTEST_BINDING: Final = 16
"""Bytes: 128 bits cannot be guessed."""

LONGEST_BINDING: Final = 128
"""Bytes: more than a long digest in hexadecimal is no digest."""

LONGEST_SUBJECT: Final = 200
"""Characters. Pleo's `urn:pleo:company:<uuid>` has 53; its form is Pleo's to change."""

LONGEST_CODE: Final = 4096
"""Characters of a code, a state or a description of an error. They travel in an address, which
servers cut at about 8 KiB."""

LONGEST_TOKEN: Final = 16_384
"""Characters. A JWT with all that a provider can think of has a few thousand; tokens travel in
headers, which servers cut at 8 to 32 KiB."""

LONGEST_REASON: Final = 500
"""Characters; the contract with callers."""

LONGEST_ERROR: Final = 100
"""Characters of an OAuth error code; the longest that are registered have about thirty."""

LONGEST_SCOPE: Final = 128
"""Characters, several times the longest of Pleo's."""

MOST_SCOPES: Final = 100
"""Pleo has a few dozen."""

LONGEST_REDIRECT_URI: Final = 2000
"""Characters: what every browser and server takes."""

LONGEST_PAGE_TOKEN: Final = 400
"""Characters: 13 bytes and the longest tenant, in Base64, with room for a release that adds to it.
"""

MOST_STATES: Final = 100
"""A grant has a few; naming one twice does no harm."""

DEFAULT_PAGE: Final = 100
"""Grants on a page where the caller does not say; the contract with callers."""

LARGEST_PAGE: Final = 1000
"""Grants on a page; a larger number means this one (AIP-158)."""

_TENANT: Final = re.compile(rf"[A-Za-z0-9._:/@-]{{1,{LONGEST_TENANT}}}")
# RFC 6749 §3.3: scope-token.
_SCOPE: Final = re.compile(rf"[!#-\[\]-~]{{1,{LONGEST_SCOPE}}}")
# RFC 6749 appendix A.7: error = 1*NQSCHAR.
_ERROR: Final = re.compile(rf"[ !#-\[\]-~]{{1,{LONGEST_ERROR}}}")
# RFC 6749 §3.1.2: an absolute URI (RFC 3986 §4.3) without a fragment.
_REDIRECT_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-\"$-~]+")
# RFC 6749 appendix A.5, A.11, A.12, A.17: state, code and tokens are 1*VSCHAR.
_VISIBLE: Final = re.compile(r"[ -~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def check_tenant(tenant: str, field: str = "tenant") -> FieldViolation | None:
    """Checks a caller's own key for a customer."""
    return _unless(
        _TENANT.fullmatch(tenant) is not None,
        field,
        f"must be 1 to {LONGEST_TENANT} characters of A-Z a-z 0-9 . _ : / @ -",
    )


def check_batch(tenants: Sequence[str]) -> list[FieldViolation]:
    """Checks a list of tenants: how many, each one's form, and that none comes twice."""
    if not 1 <= len(tenants) <= LARGEST_BATCH:
        return [_violation("tenants", f"must be 1 to {LARGEST_BATCH} tenants")]
    found = [check_tenant(tenant, f"tenants[{index}]") for index, tenant in enumerate(tenants)]
    first = {tenant: index for index, tenant in reversed(list(enumerate(tenants)))}
    found += [
        _violation(f"tenants[{index}]", f"must not repeat tenants[{first[tenant]}]")
        for index, tenant in enumerate(tenants)
        if first[tenant] != index
    ]
    return [violation for violation in found if violation is not None]


def check_watched(count: int, field: str) -> FieldViolation | None:
    """Checks how many tenants one message of a watch names."""
    return _unless(
        1 <= count <= MOST_WATCHED, field, f"must be 1 to {MOST_WATCHED} tenants in one message"
    )


def check_session_binding(session_binding: bytes) -> FieldViolation | None:
    """Checks what ties an authorization to a browser (RFC 9700 §2.1)."""
    return _unless(
        SHORTEST_BINDING <= len(session_binding) <= LONGEST_BINDING,
        "session_binding",
        f"must be {SHORTEST_BINDING} to {LONGEST_BINDING} bytes",
    )


def check_scopes(scopes: Collection[str]) -> list[FieldViolation]:
    """Checks each scope, and how many there are; none is fine."""
    if len(scopes) > MOST_SCOPES:
        return [_violation("scopes", f"must be at most {MOST_SCOPES}")]
    return [
        _violation(f"scopes[{index}]", f"must be a scope-token (RFC 6749), up to {LONGEST_SCOPE}")
        for index, scope in enumerate(scopes)
        if _SCOPE.fullmatch(scope) is None
    ]


def check_expected_subject(subject: str) -> FieldViolation | None:
    """Checks the name of a Pleo company; which form Pleo gives it is not ours to say."""
    return _unless(
        _is_text(subject, LONGEST_SUBJECT),
        "expected_subject",
        f"must be 1 to {LONGEST_SUBJECT} characters, as urn:pleo:company:<uuid>",
    )


def check_redirect_uri(redirect_uri: str) -> FieldViolation | None:
    """Checks the form only; which ones are registered, the settings say."""
    return _unless(
        len(redirect_uri) <= LONGEST_REDIRECT_URI
        and _REDIRECT_URI.fullmatch(redirect_uri) is not None,
        "redirect_uri",
        f"must be an absolute URI without a fragment, up to {LONGEST_REDIRECT_URI} characters",
    )


def check_state(state: str) -> FieldViolation | None:
    """Checks the form of a state; whose it is, and whether it lives, is asked of the store."""
    return _visible(state, "state", LONGEST_CODE)


def check_code(code: str) -> FieldViolation | None:
    """Checks an authorization code."""
    return _visible(code, "code", LONGEST_CODE)


def check_oauth_error(error: str) -> FieldViolation | None:
    """Checks the `error` of a redirect."""
    return _unless(
        _ERROR.fullmatch(error) is not None,
        "error.error",
        f"must be an OAuth error code (RFC 6749), up to {LONGEST_ERROR} characters",
    )


def check_error_description(description: str) -> FieldViolation | None:
    """Checks the `error_description` of a redirect; it may be empty, and in any language."""
    return _unless(
        len(description) <= LONGEST_CODE and _CONTROL.search(description) is None,
        "error.error_description",
        f"must be up to {LONGEST_CODE} characters without control characters",
    )


def check_refresh_token(refresh_token: str) -> FieldViolation | None:
    """Checks a refresh token that somebody else held."""
    return _visible(refresh_token, "refresh_token", LONGEST_TOKEN)


def check_access_token(access_token: str) -> FieldViolation | None:
    """Checks the access token that came with it."""
    return _visible(access_token, "access_token", LONGEST_TOKEN)


def check_reason(reason: str) -> FieldViolation | None:
    """Checks why somebody acts, for the record: any language, one line, not only blanks."""
    return _unless(
        _is_text(reason, LONGEST_REASON),
        "reason",
        f"must be 1 to {LONGEST_REASON} characters without control characters",
    )


LARGEST_HISTORY: Final = 200
"""Lines of some hundred bytes, of three records: far below what a message may hold."""

DEFAULT_HISTORY_SIZE: Final = 20
"""A screen."""


def check_page_size(page_size: int) -> FieldViolation | None:
    """Checks how many are asked for; `settled_page_size` makes a number of it."""
    return _unless(page_size >= 0, "page_size", "must not be negative")


def settled_page_size(page_size: int) -> int:
    """Returns how many grants to give at most for a page size that passed its check."""
    return min(page_size, LARGEST_PAGE) or DEFAULT_PAGE


def check_history_size(size: int) -> FieldViolation | None:
    """Checks how many lines of each record are asked for; 0: the default."""
    return _unless(0 <= size <= LARGEST_HISTORY, "history_size", f"must be 0 to {LARGEST_HISTORY}")


def check_generation(generation: int) -> FieldViolation | None:
    """Checks the generation that a caller reports as rejected."""
    return _unless(generation > 0, "rejected_generation", "must be at least 1")


def _visible(value: str, field: str, longest: int) -> FieldViolation | None:
    return _unless(
        len(value) <= longest and _VISIBLE.fullmatch(value) is not None,
        field,
        f"must be 1 to {longest} visible ASCII characters",
    )


def _is_text(value: str, longest: int) -> bool:
    return len(value) <= longest and _CONTROL.search(value) is None and value.strip() != ""


def _unless(is_good: bool, field: str, expected: str) -> FieldViolation | None:  # noqa: FBT001 - what it is unless
    return None if is_good else _violation(field, expected)


def _violation(field: str, expected: str) -> FieldViolation:
    return FieldViolation(field=field, description=expected)
