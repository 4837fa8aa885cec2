"""Reads a JSON object that a stranger sent. Never raises, whatever the bytes are.

Lenient where leniency loses nothing: a byte order mark, another Unicode encoding (RFC 4627 §3), and
stray bytes in fields that nobody needs. A string that could not be encoded again is no string here:
sent back or stored, it would not be what was received.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, TypeAlias, cast

JsonObject: TypeAlias = dict[str, object]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_object(body: bytes) -> JsonObject | None:
    """Returns the object that the whole body is; None: it is none, or nested absurdly deep.

    A byte that is no UTF-8 becomes a lone surrogate, so that `read_text` refuses the strings that
    hold one and no others.
    """
    try:
        found = json.loads(_decoded(body), parse_int=_number)
    except (ValueError, RecursionError):  # json's and Unicode's errors are ValueErrors
        return None
    return cast("JsonObject", found) if isinstance(found, dict) else None


def read_beginning(body: bytes) -> JsonObject:
    """Returns the members that came whole of an object that breaks off or has more behind it."""
    found: JsonObject = {}
    with suppress(ValueError, RecursionError):  # the end of what can be read
        for name, value in _members(_decoded(body)):
            found[name] = value
    return found


def _decoded(body: bytes) -> str:
    return body.decode(json.detect_encoding(body), "surrogateescape")


def _number(digits: str) -> int | float:
    # int() refuses more than 4300 digits, and with them all else that was said.
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


_MOST_DIGITS: Final = 20
"""Far beyond any number that is meant; above it a float will do, infinity included."""

_DECODER: Final = json.JSONDecoder(parse_int=_number)
_BLANK: Final = re.compile(r"[ \t\n\r]*")


def _members(text: str) -> Iterator[tuple[str, object]]:
    """Gives the members of an object, one by one, until there is something else.

    Raises:
        ValueError: there is.
    """
    position, mark = 0, "{"
    while True:
        name, position = _value(text, _past(text, position, mark))
        value, position = _value(text, _past(text, position, ":"))
        # A number or a word that nothing follows may have had more to it.
        if not isinstance(name, str) or not (
            isinstance(value, str) or _skip(text, position) < len(text)
        ):
            raise ValueError
        yield name, value
        mark = ","


def _value(text: str, position: int) -> tuple[object, int]:
    return _DECODER.raw_decode(text, _skip(text, position))


def _past(text: str, position: int, mark: str) -> int:
    position = _skip(text, position)
    if not text.startswith(mark, position):
        raise ValueError
    return position + len(mark)


def _skip(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def read_text(fields: JsonObject, name: str) -> str | None:
    """Returns a string that is neither empty nor impossible to encode, letter for letter."""
    value = fields.get(name)
    return value if isinstance(value, str) and value and _is_encodable(value) else None


def read_words(fields: JsonObject, name: str) -> tuple[str, ...] | None:
    """Returns a space-separated list (RFC 6749 §3.3) in order, each word once; None: no string.

    One with a NUL is none either: PostgreSQL stores no such text, and would refuse what came with
    it (law 3).
    """
    value = fields.get(name)
    if not isinstance(value, str) or not _is_encodable(value) or "\0" in value:
        return None
    return tuple(dict.fromkeys(value.split()))


def _is_encodable(text: str) -> bool:
    """Tells whether there is no lone surrogate: all else in a str has its bytes in UTF-8."""
    return text.isascii() or _SURROGATE.search(text) is None
