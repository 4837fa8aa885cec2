"""In which forms a secret may lie somewhere: as it is, URL-encoded, in base64, in hex.

Decides how each is recognised; knows neither where secrets come from nor where they may lie. In
base64 a secret looks different by what stands before it, so there are three of each alphabet,
without the characters that its neighbours have a part in.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Final, Literal, get_args
from urllib.parse import quote

Encoding = Literal["clear", "URL-encoded", "base64", "hex"]

ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

_BITS: Final = 6
"""Of a character of base64."""


def forms(secret: str) -> dict[bytes, Encoding]:
    """Returns all forms of a secret; what looks the same in two of them counts as the first."""
    found: dict[bytes, Encoding] = {}
    for encoding, form in _forms(secret):
        found.setdefault(form, encoding)
    return found


def _forms(secret: str) -> Iterator[tuple[Encoding, bytes]]:
    raw, escaped = secret.encode(), quote(secret, safe="")
    yield "clear", raw
    yield "URL-encoded", escaped.encode()
    yield "URL-encoded", re.sub("%..", lambda each: each[0].lower(), escaped).encode()
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield "base64", _own_part(encode(bytes(before) + raw), before, len(raw))
    yield "hex", raw.hex().encode()
    yield "hex", raw.hex().upper().encode()


def _own_part(encoded: bytes, before: int, length: int) -> bytes:
    first = -(-8 * before // _BITS)
    return encoded[first : 8 * (before + length) // _BITS]
