"""Randomness of the operating system, as `ports.Chance` has it."""

from __future__ import annotations

import secrets
from typing import Final

_FRACTION_BITS: Final = 53
"""As many as a float has (IEEE 754)."""


class SystemChance:
    """Upholds `ports.Chance`."""

    def jitter(self) -> float:
        """See the port."""
        return secrets.randbits(_FRACTION_BITS) / (1 << _FRACTION_BITS)

    def identifier(self) -> str:
        """See the port."""
        return secrets.token_hex(16)

    def urlsafe_secret(self) -> str:
        """See the port."""
        return secrets.token_urlsafe(32)
