"""Reads a JSON object that a stranger sent. Never raises, whatever the bytes are.

Lenient where leniency loses nothing: a byte order mark, another Unicode encoding (RFC 4627 §3), and
stray bytes in fields that nobody needs. A string that could not be encoded again is no string here:
sent back or stored, it would not be what was received.
"""

from __future__ import annotations

import json
from typing import TypeAlias, cast

JsonObject: TypeAlias = dict[str, object]


def read_object(body: bytes) -> JsonObject | None:
    """Returns the object that the whole body is; None: it is none, or nested absurdly deep.

    A byte that is no UTF-8 becomes a lone surrogate, so that `read_text` refuses the strings that
    hold one and no others.
    """
    try:
        found = json.loads(body.decode(json.detect_encoding(body), "surrogateescape"))
    except (ValueError, RecursionError):  # json's and Unicode's errors are ValueErrors
        return None
    return cast("JsonObject", found) if isinstance(found, dict) else None


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
    return not any("\ud800" <= character <= "\udfff" for character in text)
