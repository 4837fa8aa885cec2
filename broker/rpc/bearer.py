"""Service-account tokens, as Kubernetes projects them into a pod: `sa:` and whom they are for.

A token counts if our issuer signed it, for us, and it has not expired; nothing in it chooses how it
is checked. What is refused is told with its reason and never with any of the token (law 7).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import jwt

from broker.domain.errors import CallerUnauthenticated
from broker.domain.fields import LONGEST_TOKEN
from broker.rpc.caller import IDENTITY, Context
from broker.rpc.jwks import ALGORITHMS, Issuer, Keys

_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "

_LEEWAY: Final = 10.0
"""Seconds that our clock and the issuer's may differ."""

_MOST_REMEMBERED: Final = 10_000
"""Tokens. A signature costs more than all the rest of a call, and a pod shows the same token for
most of an hour."""

_REQUIRED: Final = ("exp", "iss", "aud", "sub")


def bearer_token(context: Context) -> str | None:
    """Returns the token that a call carries; None: it carries none.

    Raises:
        CallerUnauthenticated: it carries several, or something else.
    """
    found = [value for name, value in context.invocation_metadata() or () if name == _HEADER]
    if not found:
        return None
    value = found[0]
    if len(found) > 1 or not isinstance(value, str) or not value.lower().startswith(_SCHEME):
        raise _refused("expected one `authorization: Bearer …`")
    return value[len(_SCHEME) :].strip()


class ServiceAccounts:
    """Checks tokens."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        issuer_name: str,
        audience: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock`: seconds since 1970, for tokens that were checked before."""
        self._issuer = issuer
        self._issuer_name = issuer_name
        self._audience = audience
        self._clock = clock
        self._keys: Keys = {}
        self._known: dict[bytes, tuple[str, float]] = {}

    async def identity(self, token: str) -> str:
        """Returns whom a token is for.

        Raises:
            CallerUnauthenticated: with the reason.
        """
        known = self.known(token)
        if known is not None:
            return known
        key = await self._key_of(token)
        claims = self._claims(token, key)
        identity = f"sa:{claims['sub']}"
        if IDENTITY.fullmatch(identity) is None:
            raise _refused("expected a subject of at most 500 visible ASCII characters")
        self._remember(_digest(token), identity, float(claims["exp"]) + _LEEWAY)
        return identity

    def known(self, token: str) -> str | None:
        """Returns whom a token is for that was checked before, and still counts; None: check it."""
        if self._keys is not self._issuer.keys():
            # A key that is gone takes with it what it has signed.
            self._keys = self._issuer.keys()
            self._known.clear()
        identity, expires_at = self._known.get(_digest(token), ("", 0.0))
        return identity if self._clock() < expires_at else None

    async def _key_of(self, token: str) -> jwt.PyJWK:
        if len(token) > LONGEST_TOKEN:
            raise _refused(f"expected at most {LONGEST_TOKEN} characters")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError):
            raise _refused("it is no JSON Web Token") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise _refused("expected a signature with a public key (as RS256 or ES256)")
        kid = header.get("kid")
        key = await self._issuer.find(kid) if isinstance(kid, str) else None
        if key is None:
            are_known = bool(self._issuer.keys())
            raise _refused(
                "its key (`kid`) is none of the issuer's"
                if are_known
                else "the issuer's keys could not be fetched yet"
            )
        return key

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._audience,
                issuer=self._issuer_name,
                leeway=_LEEWAY,
                options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise _refused(_why(error)) from None

    def _remember(self, digest: bytes, identity: str, expires_at: float) -> None:
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = identity, expires_at


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.InvalidIssuerError, "another issuer made it"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.MissingRequiredClaimError, f"expected the claims {', '.join(_REQUIRED)}"),
    (jwt.InvalidSignatureError, "its signature is not the issuer's"),
    (jwt.InvalidAlgorithmError, "its algorithm is not that of its key"),
)


def _why(error: Exception) -> str:
    """Says what is wrong, in words of ours: the library's repeat what the token says."""
    return next((why for kind, why in _REASONS if isinstance(error, kind)), "it is malformed")


def _refused(why: str) -> CallerUnauthenticated:
    return CallerUnauthenticated(f"the bearer token is no identity: {why}")
