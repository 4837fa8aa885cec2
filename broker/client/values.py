"""What the library hands out, and what it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """An access token of one tenant. Its `repr` does not show it."""

    value: str = field(repr=False)
    """Exactly as Pleo sent it."""

    token_type: str
    """How to present it, as `Bearer`."""

    generation: int
    """Which of the tenant's tokens it is: what to report where Pleo answers 401 to it."""

    expire_time: datetime
    """When its life ends, on the broker's clock."""

    scopes: tuple[str, ...]
    is_degraded: bool
    """True where it lives, but could not be renewed as planned: use it now, ask again next time."""

    @property
    def authorization(self) -> str:
        """The value of the header `Authorization`."""
        return f"{self.token_type} {self.value}"


@dataclass(slots=True, kw_only=True, eq=False)
class Kept:
    """A token in the cache."""

    token: AccessToken
    reuse_until: float
    """On the monotonic clock. Not used any more from then on, however long it lives."""

    renewed_at: float
    """On the same clock: when its planned rotation has begun for certain. Asked before that, the
    broker would only give it once more."""

    is_used: bool
    """Whether anybody has asked for it. One that nobody asked for is watched no longer."""
