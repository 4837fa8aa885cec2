"""How long each part of an attempt may take. One source for deadlines, so that they always fit.

claim ──── send budget ────► last moment to send ── HTTP timeout ──► ── drain ──► deadline
the answer is listened for till ◄─┤ margin
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

SEND_BUDGET: Final = timedelta(seconds=10)
"""From the claim to the first byte: waits for the pool, DNS, TCP and TLS lie in it."""

DRAIN: Final = timedelta(seconds=10)
"""From the end of the HTTP timeout to the deadline: reading on, and settling."""

SHORTEST_WAIT: Final = timedelta(seconds=10)
"""Of the quarantine, beside the drain."""

TRIES_IN_QUARANTINE: Final = 3
"""That a living holder has, whatever it has run into: the one that was under way when PostgreSQL
could take a pair again may hang, and so may the next, for reasons of its own."""

SETTLING_MARGIN: Final = timedelta(seconds=2)
"""Kept of the drain for the settlement itself: a few tries of a statement."""


LONGEST_HTTP_TIMEOUT: Final = timedelta(seconds=60)
"""That an installation may set; another replica's may be another one for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTimes:
    """The times of every attempt of this installation."""

    http_timeout: timedelta
    """What a whole token request may take before callers are told that its outcome is unknown."""

    @property
    def span(self) -> timedelta:
        """From the read before the claim to the attempt's deadline: 30 s for a timeout of 10 s.

        Not less for a shorter timeout: a claim that waits for a quarantine has the send budget left
        after it. With less, whoever has a slow PostgreSQL would be overdue at each arming, claim
        anew, and never present.
        """
        return SEND_BUDGET + self.quarantine

    @property
    def answer_within(self) -> timedelta:
        """From the read before the claim until the answer is given up."""
        return self.span - SETTLING_MARGIN

    @property
    def quarantine(self) -> timedelta:
        """After an abandoned attempt: time in which a living holder stores or escrows its pair.

        A short HTTP timeout does not shorten it: see `retry_within`.
        """
        return max(self.http_timeout, SHORTEST_WAIT) + DRAIN

    @property
    def retry_within(self) -> timedelta:
        """From the beginning of a holder's try to store its pair to that of the next, at most.

        What a try may take is in `store/pool.py` and `lease/times.py`, and the pause after it in
        `service/settle.py`; that they fit is for a test to say (tests/unit/test_times.py).
        """
        return self.quarantine // TRIES_IN_QUARANTINE

    @property
    def longest_wait(self) -> timedelta:
        """How long attempts of others are waited for: one, and one more after its quarantine."""
        return 2 * self.span


LONGEST_SPAN: Final = AttemptTimes(http_timeout=LONGEST_HTTP_TIMEOUT).span
"""Of any replica's attempt."""
