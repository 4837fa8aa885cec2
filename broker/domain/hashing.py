"""The digest under which values are kept that come back: states, codes, session bindings.

They have at least 128 random bits, so that neither salt nor stretching is needed.
"""

from __future__ import annotations

import hashlib


def sha256(value: str | bytes) -> bytes:
    """Returns 32 bytes; text is taken as UTF-8."""
    # Text from a caller may hold lone surrogates; it is hashed, never shown.
    encoded = value.encode(errors="surrogatepass") if isinstance(value, str) else value
    return hashlib.sha256(encoded).digest()
