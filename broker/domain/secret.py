"""Values that appear nowhere in clear (law 7).

A secret shows itself only through `reveal`, so that a search for that word finds every place where
one leaves: sealing, the provider's wire, and the answer to an authorised caller. RFC nouns are
distinct types at no cost.
"""

from __future__ import annotations

import hmac
from typing import NewType, NoReturn


class Secret:
    """Text that repr, format, pickling and comparison by time do not give away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap `value`, kept exactly as received: tokens are opaque (pleo.md, "Token requests")."""
        self._value = value

    def reveal(self) -> str:
        """Return the clear text. Every call is a place where a secret leaves its wrapper."""
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("<secret>", spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._encoded(), other._encoded())

    def _encoded(self) -> bytes:
        # JSON can hold lone surrogates; the error that encoding raises for them holds the text.
        return self._value.encode(errors="surrogatepass")

    # Hashing would invite secrets into dictionary keys, where debuggers and dumps show them.
    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        message = "a secret is not pickled"
        raise TypeError(message)


AccessToken = NewType("AccessToken", Secret)
"""RFC 6749 §1.4."""

RefreshToken = NewType("RefreshToken", Secret)
"""RFC 6749 §1.5."""

AuthorizationCode = NewType("AuthorizationCode", Secret)
"""RFC 6749 §1.3.1."""

CodeVerifier = NewType("CodeVerifier", Secret)
"""RFC 7636 §4.1."""

ClientSecret = NewType("ClientSecret", Secret)
"""RFC 6749 §2.3.1."""
