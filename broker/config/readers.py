"""Reads the text of one variable: a function a kind, each saying what it expected.

A reader is the same thing twice: the conversion, and the sentence for whoever got it wrong. That
sentence is all that is ever said about a wrong value (law 7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from broker.config.addresses import Address, DatabaseUrl, is_loopback, split_url
from broker.config.sources import SecretSource

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

# RFC 6749 §3.3: scope-token.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")

# What RFC 6749 §4.1.1 and RFC 7636 §4.3 put into the request; a second one would be refused, or
# worse, be the one that counts.
_OWN_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "response_type",
        "scope",
        "state",
    }
)

# sockaddr_un of macOS, less the closing zero; Linux has four more.
_LONGEST_SOCKET_PATH: Final = 103

_REDIS_SCHEMES: Final = frozenset(
    {
        "redis",
        "rediss",
        "redis+cluster",
        "redis+clusters",
        "redis+sentinel",
        "redis+sentinels",
    }
)


def reader(convert: Callable[[str], T], expected: str) -> BeforeValidator:
    """Returns a validator for text that `convert` raises ValueError for, where it is wrong.

    What is no text is a default, or a secret's source: it was read already.
    """

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return convert(value.strip())
        except ValueError:
            raise PydanticCustomError("expected", "{sentence}", {"sentence": expected}) from None

    return BeforeValidator(read)


def secret_reader(check: Callable[[str], object], expected: str) -> BeforeValidator:
    """Returns a validator for a secret whose content `check` raises ValueError for.

    A secret that cannot be read is a problem told elsewhere (`reading.py`).
    """

    def read(source: object) -> object:
        if isinstance(source, SecretSource):
            try:
                check(source.read().reveal())
            except ValueError:
                raise PydanticCustomError(
                    "expected", "{sentence}", {"sentence": expected}
                ) from None
        return source

    return BeforeValidator(read)


def matching(pattern: str, expected: str) -> BeforeValidator:
    """Text of a form."""
    return reader(lambda text: _insist(text, re.fullmatch(pattern, text) is not None), expected)


def one_of(kind: type[E]) -> BeforeValidator:
    """One of an enumeration's values."""
    return reader(kind, " or ".join(f"`{member.value}`" for member in kind))


def switch() -> BeforeValidator:
    """True or false; nothing else, so that `off` or `0` is not taken for a yes by somebody."""
    return reader(lambda text: {"true": True, "false": False}[_known(text)], "`true` or `false`")


def whole(low: int, high: int) -> BeforeValidator:
    """A whole number."""
    return reader(
        lambda text: _insist(int(_digits(text)), low <= int(text) <= high),
        f"a whole number from {low} to {high}",
    )


def seconds(low: int, high: int) -> BeforeValidator:
    """A span in seconds."""
    return _span(timedelta(seconds=1), low, high, "seconds")


def days(low: float, high: int) -> BeforeValidator:
    """A span in days."""
    return _span(timedelta(days=1), low, high, "days")


def listen_address() -> BeforeValidator:
    """`host:port`."""
    return reader(Address.read, "`host:port` or `[ipv6]:port`; port 0 is any free one")


def file_path() -> BeforeValidator:
    """A path. Whether the file is there is for those who read it: it may come later."""
    return reader(lambda text: Path(_insist(text, "\0" not in text)), "the path of a file")


def socket_path() -> BeforeValidator:
    """The path of a Unix socket."""
    return reader(
        lambda text: Path(
            _insist(text, text.startswith("/") and len(text.encode()) <= _LONGEST_SOCKET_PATH)
        ),
        f"an absolute path of at most {_LONGEST_SOCKET_PATH} bytes",
    )


def https_url() -> BeforeValidator:
    """The address of somebody else's service."""
    return reader(_https_url, f"{_HTTPS}, without user and fragment")


def base_url() -> BeforeValidator:
    """An address that paths are appended to; empty says that there is none."""
    return reader(
        lambda text: text and _without_query(_https_url(text)).rstrip("/"),
        f"{_HTTPS}, without user, query and fragment; empty turns off the subject look-up",
    )


def url_or_file() -> BeforeValidator:
    """An address, or the path of a file."""
    return reader(
        lambda text: text if text.startswith("/") else _https_url(text),
        f"{_HTTPS}, or the absolute path of a file",
    )


def redirect_uris() -> BeforeValidator:
    """Redirect URIs; one is compared letter for letter at Pleo, so it is kept as it is written."""
    return reader(
        lambda text: _distinct([_https_url(each) for each in text.split()]),
        f"space-separated addresses, each once: {_HTTPS}, without user and fragment",
    )


def scopes() -> BeforeValidator:
    """Scopes (RFC 6749 §3.3)."""
    return reader(
        lambda text: _distinct(
            [_insist(each, _SCOPE.fullmatch(each) is not None) for each in text.split()]
        ),
        "space-separated scopes, each once",
    )


def form_parameters() -> BeforeValidator:
    """Parameters, as a query has them."""
    return reader(
        _form_parameters, "`name=value&…`, form-encoded, and none that the broker sets itself"
    )


def database_url() -> BeforeValidator:
    """PostgreSQL's address."""
    return secret_reader(
        DatabaseUrl.read,
        "postgresql://user:password@host:port/database, with a host, and percent-encoded parts",
    )


def redis_url() -> BeforeValidator:
    """Redis's address."""
    return secret_reader(
        _redis_url,
        "redis://, rediss:// or unix://; redis+sentinel(s)://h1:p,h2:p/SERVICE/DB or"
        " redis+cluster(s)://h1:p,h2:p; with percent-encoded parts",
    )


_HTTPS: Final = "an HTTPS address, or HTTP on loopback"


def _insist(value: T, condition: object) -> T:
    if not condition:
        raise ValueError
    return value


def _known(text: str) -> str:
    return _insist(text.lower(), text.lower() in {"true", "false"})


def _digits(text: str) -> str:
    # int() also takes signs, underscores and the digits of other scripts.
    return _insist(text, text.isascii() and text.isdigit())


def _span(unit: timedelta, low: float, high: float, name: str) -> BeforeValidator:
    def convert(text: str) -> timedelta:
        number = float(_insist(text, re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text)))
        return unit * _insist(number, low <= number <= high)

    return reader(convert, f"a number of {name} from {low:g} to {high:g}")


def _https_url(text: str) -> str:
    parts = split_url(text)
    host = parts.hostname or ""
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return _insist(text, is_safe and host and "@" not in parts.netloc and "#" not in text)


def _without_query(text: str) -> str:
    return _insist(text, "?" not in text)


def _distinct(values: Sequence[str]) -> tuple[str, ...]:
    return _insist(tuple(values), len(set(values)) == len(values))


def _form_parameters(text: str) -> tuple[tuple[str, str], ...]:
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    return _insist(tuple(pairs), _OWN_PARAMETERS.isdisjoint(name for name, _ in pairs))


def _redis_url(text: str) -> None:
    parts = split_url(text)
    if parts.scheme == "unix":
        _insist(text, parts.path)
        return
    is_one = parts.hostname or "," in parts.netloc
    _insist(text, parts.scheme in _REDIS_SCHEMES and is_one)
    if parts.scheme.startswith("redis+sentinel"):
        _insist(text, parts.path.strip("/"))
    if parts.scheme.startswith("redis+cluster"):
        _insist(text, parts.path in {"", "/", "/0"})
