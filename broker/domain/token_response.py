"""Reads what the token endpoint answered: the one place that says what it means for a grant.

Pure, and never raises. The order of the questions is the point (pleo.md, "Failures"):

    a readable refresh token, whatever else is odd    rotated: store first, complain afterwards
    2xx with one in JSON that breaks off later        likewise
    429                                               not processed
    2xx with an access token alone                    rotated; the presented token stays
    4xx with an OAuth error code that we know         refused, or misconfigured
    everything else                                   unknown: hold, never purge

A refresh and an exchange are read alike. Tokens are kept letter for letter (law 3) and appear in no
code or flag (law 7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.json_object import (
    JsonObject,
    read_beginning,
    read_object,
    read_text,
    read_words,
)
from broker.domain.secret import AccessToken, RefreshToken, Secret

REFUSALS: Final = frozenset({"invalid_grant", "invalid_token", "invalid_refresh_token"})
"""About the grant, or about the code."""

MISCONFIGURATIONS: Final = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_request",
        "invalid_scope",
    }
)
"""About our registration or our request."""

LONGEST_LIFETIME: Final = timedelta(days=366)
"""No access token lives for a year: a longer one is something else, such as a time since 1970."""

LONGEST_RETRY_AFTER: Final = timedelta(days=1)
"""Far beyond what is honoured (`backoff.LONGEST_RETRY_AFTER`); keeps absurd numbers out of sums."""

LONGEST_TOKEN_TYPE: Final = 64
"""RFC 6749 §A.13 sets no bound. The longest registered one has 20 letters; it goes to callers."""

LONGEST_ERROR: Final = 40
"""The longest registered code has 27 letters. It goes to logs and metrics."""

_SUCCESS: Final = 2
_CLIENT_ERROR: Final = 4
"""The first digit of a status tells its class (RFC 9110 §15)."""

_BEARER: Final = "Bearer"
_VSCHARS: Final = re.compile(r"[\x20-\x7e]+")
"""What a token may consist of (RFC 6749 §A.12, §A.17)."""

_TOKEN_TYPE: Final = re.compile(r"[A-Za-z0-9._-]+")
_NUMBER: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_ERROR: Final = re.compile(r"[a-z]+(_[a-z]+)*")
_DATE: Final = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT")
"""The only form of a date that may be sent (RFC 9110 §5.6.7)."""


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """Returns what an answer means. Names of headers may be in any case."""
    fields = read_object(body)
    if fields is not None and read_text(fields, "refresh_token") is not None:
        return _rotated(status, fields)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return NotProcessed(code="http_429", retry_after=_retry_after(headers))
    if status // 100 == _SUCCESS:
        return _success(status, fields, body)
    return _failure(status, fields)


def _success(status: int, fields: JsonObject | None, body: bytes) -> Answer:
    if fields is not None and read_text(fields, "access_token") is not None:
        return _rotated(status, fields)
    begun = read_beginning(body) if fields is None else {}
    # With an access token alone it cannot be told whether a refresh token was to follow.
    if read_text(begun, "refresh_token") is not None:
        rotated = _rotated(status, begun)
        return replace(rotated, flags=("broken_json", *rotated.flags))
    return _failure(status, fields)


def _failure(status: int, fields: JsonObject | None) -> Answer:
    is_client_error = status // 100 == _CLIENT_ERROR
    error = read_text(fields, "error") if fields is not None else None
    if is_client_error and error in REFUSALS:
        return Refused(error=error)
    if is_client_error and error in MISCONFIGURATIONS:
        return Misconfigured(error=error)
    return Unknown(code=_code(status, error))


def _code(status: int, error: str | None) -> str:
    """Names an answer that was not understood."""
    if status // 100 not in {_SUCCESS, _CLIENT_ERROR}:
        return f"http_{status}"
    if error is None:
        return f"unreadable_{status}"
    # Only what looks like a code is repeated: an answer might hold anything there, a token too.
    is_code = len(error) <= LONGEST_ERROR and _ERROR.fullmatch(error)
    return f"error_{error}" if is_code else "error_odd"


def _rotated(status: int, fields: JsonObject) -> Rotated:
    access_token = read_text(fields, "access_token")
    refresh_token = read_text(fields, "refresh_token")
    return Rotated(
        access_token=None if access_token is None else AccessToken(Secret(access_token)),
        refresh_token=None if refresh_token is None else RefreshToken(Secret(refresh_token)),
        token_type=_token_type(fields) or _BEARER,
        expires_in=_expires_in(fields.get("expires_in")),
        scopes=read_words(fields, "scope"),
        flags=tuple(_flags(status, fields)),
    )


def _flags(status: int, fields: JsonObject) -> Iterator[str]:
    """Names what is odd about an answer with tokens, in the order of RFC 6749 §5.1."""
    if status != HTTPStatus.OK:
        yield "odd_status"
    if "error" in fields:
        yield "error_present"
    for name in ("access_token", "refresh_token"):
        yield from _token_flags(fields, name)
    if "token_type" not in fields:
        yield "no_token_type"
    elif (_token_type(fields) or "").lower() != "bearer":
        yield "odd_token_type"
    if fields.get("expires_in") is None:
        yield "no_expires_in"
    elif _expires_in(fields["expires_in"]) is None:
        yield "bad_expires_in"
    if fields.get("scope") is not None and read_words(fields, "scope") is None:
        yield "bad_scope"


def _token_flags(fields: JsonObject, name: str) -> Iterator[str]:
    token = read_text(fields, name)
    if token is None:
        yield f"no_{name}"
    elif not _VSCHARS.fullmatch(token):
        # Kept: a form carries any text. An access token like this fits into no header.
        yield f"odd_{name}"


def _token_type(fields: JsonObject) -> str | None:
    token_type = read_text(fields, "token_type")
    if token_type is None or len(token_type) > LONGEST_TOKEN_TYPE:
        return None
    return token_type if _TOKEN_TYPE.fullmatch(token_type) else None


def _expires_in(value: object) -> timedelta | None:
    """Returns the lifetime; None where there is none, or none that can be meant."""
    match value:
        case bool():
            return None
        case int() | float() if 0 < value <= LONGEST_LIFETIME.total_seconds():  # NaN is neither
            return timedelta(seconds=value) or None
        case str() if _NUMBER.fullmatch(value):
            return _expires_in(float(value))
        case _:
            return None


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Returns the pause that a 429 asks for, in seconds or as a date (RFC 9110 §10.2.3).

    A date counts from the answer's own `Date`, which is on the same clock; without one it means
    nothing here, where there is no clock.
    """
    by_name = {name.lower(): value.strip() for name, value in headers.items()}
    asked = by_name.get("retry-after", "")
    if _NUMBER.fullmatch(asked):
        pause = timedelta(seconds=min(float(asked), LONGEST_RETRY_AFTER.total_seconds()))
    else:
        until, since = _date(asked), _date(by_name.get("date", ""))
        pause = until - since if until and since else timedelta(0)
    return min(pause, LONGEST_RETRY_AFTER) if pause > timedelta(0) else None


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if _DATE.fullmatch(text) else None
    except ValueError:  # the 31st of February
        return None
