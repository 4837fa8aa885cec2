"""How long things take in this room, each with its reason. Tests shorten them.

The defaults are those of the default timeout of a request to Pleo; `lease_times` has them for any.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.domain.times import AttemptTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Times for leases, announcements and the connections below them."""

    ttl: timedelta = timedelta(seconds=10)
    """A lease lasts so long after its holder fell silent: as long as one request to Pleo may take,
    so that a herd does not run into a refresh that a dead replica has on the wire. Extended at half
    of it, which a stall of five seconds survives."""

    life: timedelta = timedelta(seconds=30)
    """A lease is never extended beyond this, counted from before it was asked for: the span of an
    attempt, whose deadline is counted from later, so that no lease outlives the attempt."""

    connect: timedelta = timedelta(milliseconds=250)
    """For a connection. A round trip within a region takes 1 ms; a lost SYN is sent again after a
    second, which nobody should wait for."""

    answer: timedelta = timedelta(milliseconds=250)
    """For an answer: a quarter of a second more is what losing Redis may cost a caller."""

    pause: timedelta = timedelta(seconds=5)
    """Without asking, after Redis failed: else each refresh pays the timeouts of an outage."""

    ping: timedelta = timedelta(seconds=2)
    """A subscription silent for so long is asked whether it lives, and given up when it says
    nothing for as long again: noticed within four seconds, law 6 allows five."""

    resubscribe_first: timedelta = timedelta(seconds=1)
    """Until the first try to subscribe again: a restart takes about so long."""

    resubscribe_most: timedelta = timedelta(seconds=5)
    """Later tries are farther apart, up to this: what an outage hides shows after it in at most
    five seconds, and until then the poll of PostgreSQL tells (law 6)."""


def lease_times(attempt: AttemptTimes) -> LeaseTimes:
    """Returns the times of leases for attempts of these times."""
    shortest = LeaseTimes().ttl  # shorter ones would not survive a stall
    return LeaseTimes(ttl=max(attempt.http_timeout, shortest), life=attempt.span)
