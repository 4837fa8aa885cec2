"""The keys that an issuer signs its tokens with: a JSON Web Key Set (RFC 7517), from file or URL.

Only public keys that sign are taken, each with a name (`kid`) and bound to one algorithm, so that a
token cannot choose how it is checked (RFC 8725 §3.1); what is symmetric never is a key here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import jwt

from broker.ports import Observer
from broker.rpc.reloading import Contents, FilesUnusableError, Reloaded

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""With a public key. Not `none`, and nothing that is checked with what it is signed with."""

WHAT: Final = "jwks"
"""As log and metrics call it."""

Keys: TypeAlias = Mapping[str, jwt.PyJWK]
"""By `kid`. Another object when they have changed."""


class Issuer(Protocol):
    """Whose keys tokens are checked with."""

    def keys(self) -> Keys:
        """Returns those that are known now."""
        ...

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Returns a key, after having asked for newer ones where that may help. Safe to cancel."""
        ...


class FileIssuer:
    """Keys from a file, which is read again when it changes."""

    def __init__(self, path: Path, *, observer: Observer) -> None:
        """Reads it.

        Raises:
            FilesUnusableError: it is no set of keys.
        """
        self.file = Reloaded(
            WHAT, [path], parse=lambda found: _of_file(path, found), observer=observer
        )

    def keys(self) -> Keys:
        """See `Issuer`."""
        return self.file.current

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """See `Issuer`."""
        return self.file.current.get(kid)


def read_keys(content: bytes) -> Keys:
    """Reads a set; what cannot be used is left out.

    Raises:
        FilesUnusableError: it holds no key that can be used. Says nothing of what it holds.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    described = document.get("keys") if isinstance(document, dict) else None
    keys = dict(_usable(described if isinstance(described, list) else []))
    if not keys:
        raise FilesUnusableError(
            "expected a JSON Web Key Set with public keys (RSA, EC, Ed25519) that have a `kid`"
        )
    return keys


def _of_file(path: Path, contents: Contents) -> Keys:
    try:
        return read_keys(contents[0])
    except FilesUnusableError as error:
        raise FilesUnusableError(f"{path}: {error}") from None


def _usable(described: list[object]) -> Iterator[tuple[str, jwt.PyJWK]]:
    for each in described:
        # A private key in a public place is nobody's any more.
        if not isinstance(each, dict) or "d" in each or each.get("use", "sig") != "sig":
            continue
        kid = each.get("kid")
        try:
            key = jwt.PyJWK(each)
        # Whatever a stranger's JSON makes the library stumble over; its messages repeat the key.
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError):
            continue
        if isinstance(kid, str) and kid and key.algorithm_name in ALGORITHMS:
            yield kid, key
