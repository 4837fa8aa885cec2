"""Randomness, and who is told."""

from __future__ import annotations

from typing import Protocol

from broker.domain.facts import Fact


class Chance(Protocol):
    """Where randomness comes from: the operating system's, or a simulation's seed."""

    def jitter(self) -> float:
        """Returns a number in [0, 1)."""

    def identifier(self) -> str:
        """Returns a name that nobody else has: 128 bits, hexadecimal."""

    def urlsafe_secret(self) -> str:
        """Returns 256 bits in 43 characters of the URL-safe Base64 alphabet (RFC 7636 §4.1)."""


class Observer(Protocol):
    """Who is told what happened."""

    def observe(self, fact: Fact) -> None:
        """Takes note. Never raises, never blocks, never changes what happens."""
