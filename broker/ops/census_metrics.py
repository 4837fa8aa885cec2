"""Metrics of all grants there are: shown by the one replica that counts them, and by no other.

So that `sum` and `max` over the replicas say what is. A replica that stops counting shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.ops.instruments import Instruments, word
from broker.store.census import Census


class CensusMetrics:
    """Shows the last census, or nothing."""

    def __init__(self, make: Instruments) -> None:
        self._census: Census | None = None
        self._taken = make.gauge("census_taken", "Whether this replica counts all grants")
        self._grants = make.gauge("grants", "All grants there are, by state", labels=("state",))
        self._show(
            make,
            "attempts_unresolved",
            "Grants with an attempt whose deadline has passed and whose outcome nobody knows",
            of=lambda census: census.unresolved,
        )
        self._show(
            make,
            "renewals_overdue",
            "Grants given out long after their renewal time, and not rotated since",
            of=lambda census: census.overdue,
        )
        self._show(
            make,
            "grants_at_risk",
            "Active grants whose refresh token is a day older than keep-alive allows",
            of=lambda census: census.at_risk,
        )
        self._show(
            make,
            "renewal_lag_seconds",
            "How long ago the renewal time of the longest overdue was",
            of=lambda census: census.lag.total_seconds(),
        )

    def _show(
        self, make: Instruments, name: str, tells: str, *, of: Callable[[Census], float]
    ) -> None:
        make.read_if_known(
            name, tells, now=lambda: None if self._census is None else of(self._census)
        )

    def show(self, census: Census | None) -> None:
        """Shows a census; None: another replica counts."""
        self._census = census
        self._taken.set(census is not None)
        self._grants.clear()
        if census is not None:
            for state, number in census.by_state.items():
                self._grants.labels(word(state)).set(number)
