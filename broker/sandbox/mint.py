"""Makes every secret that the sandbox gives out, and keeps them all.

A scanner asks for the list afterwards and looks for each of them in databases, logs and dumps, so
nothing may be given out that was not made here. What a sandbox has issued stays on the list when it
is reset or gone. Where randomness comes from is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

SecretKind = Literal["access_token", "refresh_token", "code", "code_verifier", "client_secret"]

Randomness = Callable[[int], str]
"""Gives at least that many URL-safe characters, as `secrets.token_urlsafe` does."""

# Refresh tokens and codes end with characters that a form or a query must escape, so that a client
# that forgets to is found out at once. RFC 6749 appendix A allows all of them.
_AWKWARD_END: Final = "+/~="


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSecret:
    """Something that must never be seen outside."""

    kind: SecretKind
    value: str = field(repr=False)


_KEPT_ANYWHERE: Final[list[dict[str, IssuedSecret]]] = []


def issued_anywhere() -> Iterator[IssuedSecret]:
    """Give all secrets of all sandboxes that this process has had, however they ended."""
    for kept in _KEPT_ANYWHERE:
        yield from kept.values()


class Mint:
    """Issues secrets that say of themselves that they are fakes."""

    def __init__(self, randomness: Randomness) -> None:
        """Draw from `randomness`."""
        self._randomness = randomness
        self._kept: dict[str, IssuedSecret] = {}
        _KEPT_ANYWHERE.append(self._kept)

    @property
    def kept(self) -> tuple[IssuedSecret, ...]:
        """All secrets there ever were, in the order of their making."""
        return tuple(self._kept.values())

    def keep(self, kind: SecretKind, value: str) -> str:
        """Remember a secret that others made, such as a code verifier that was presented."""
        self._kept.setdefault(value, IssuedSecret(kind=kind, value=value))
        return value

    def access_token(self, length: int) -> str:
        """Make one of `length` characters, within the alphabet of RFC 6750 §2.1."""
        return self._made("access_token", length, "")

    def refresh_token(self, length: int) -> str:
        """Make one of `length` characters."""
        return self._made("refresh_token", length, _AWKWARD_END)

    def code(self, length: int) -> str:
        """Make one of `length` characters."""
        return self._made("code", length, _AWKWARD_END)

    def _made(self, kind: SecretKind, length: int, end: str) -> str:
        start = f"sandbox-{kind.replace('_', '-')}-"
        # Never fewer than 22 random characters, 128 bits, however short they are asked for.
        wanted = max(22, length - len(start) - len(end))
        return self.keep(kind, start + self._randomness(wanted)[:wanted] + end)
