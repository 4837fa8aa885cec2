"""Which sealed values were met lately that do not open although their key is there.

That is nobody's outage: each concerns one tenant, and all others go on. It is for a person to look
at, so it is told once when it is met, counted, and shown by a health check, until the value opens,
is replaced, or nobody has met it for an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from broker.domain.facts import Fact, SealedValueUnreadable

FORGOTTEN_AFTER_SECONDS: Final = 3600.0
"""Another replica may have replaced the value, which nobody tells us; who asks again meets it."""

MOST: Final = 10_000
"""Of some hundred bytes each. Where there are more, all is lost, and the number says enough."""

_Where: TypeAlias = tuple[str, str, str]


def _nobody(_fact: Fact) -> None:
    """Is told, and does nothing."""


class UnreadableRecords:
    """Remembers them, in this replica."""

    def __init__(
        self,
        tell: Callable[[Fact], None] = _nobody,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds that never go back."""
        self._tell = tell
        self._clock = clock
        self._met_at: dict[_Where, float] = {}

    def __len__(self) -> int:
        """How many there are."""
        self._forget()
        return len(self._met_at)

    def met(self, *, table: str, tenant: str, field: str) -> None:
        """Takes note of a value that does not open; tells it if it is news."""
        self._forget()
        where = table, tenant, field
        is_new = where not in self._met_at
        if is_new and len(self._met_at) >= MOST:
            return
        self._met_at[where] = self._clock()
        if is_new:
            self._tell(SealedValueUnreadable(tenant=tenant, table=table, field=field))

    def opened(self, *, table: str, tenant: str, field: str) -> None:
        """Takes note of one that opens. Costs nothing where all do."""
        if self._met_at:
            self._met_at.pop((table, tenant, field), None)

    def _forget(self) -> None:
        oldest = self._clock() - FORGOTTEN_AFTER_SECONDS
        for where in [each for each, at in self._met_at.items() if at < oldest]:
            del self._met_at[where]
