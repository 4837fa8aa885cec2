"""Metrics of how tokens reach callers: from where, in which flights, past which lease."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts import (
    FlightEnded,
    FlightJoined,
    FlightStarted,
    LeaseAnswered,
    LeaseOutcome,
    MemoryDropped,
    Source,
    TokenServed,
    WaitedForReplica,
)
from broker.ops.instruments import (
    CALL_SECONDS,
    CALLERS,
    REFRESH_SECONDS,
    Instruments,
    from_zero,
    word,
)

ServingFact: TypeAlias = (
    TokenServed
    | FlightStarted
    | FlightJoined
    | FlightEnded
    | LeaseAnswered
    | WaitedForReplica
    | MemoryDropped
)


class ServingMetrics:
    """Counts on the way of every token, so what that needs is looked up beforehand."""

    def __init__(self, make: Instruments) -> None:
        served = make.tallies("tokens_served", "Tokens given out", labels=("source", "degraded"))
        self._served = {
            (source, degraded): served.of(word(source), str(degraded).lower())
            for source in Source
            for degraded in (False, True)
        }
        self.from_memory = self._served[Source.MEMORY, False]
        """Tokens of which nobody tells with a fact (`rpc/short_way.py`)."""

        self._started = make.counter("flights_started", "Flights that a first caller started")
        self._joined = make.counter(
            "flights_joined", "Callers that waited for a flight which another had started"
        )
        self._in_flight = make.gauge("flights_in_flight", "Flights under way")
        self._ended = make.counter(
            "flights_ended", "Flights, by how they ended; no reason: a token", labels=("reason",)
        )
        self._duration = make.histogram(
            "flight_duration_seconds", "From the first caller to the answer", bounds=REFRESH_SECONDS
        )
        self._waiters = make.histogram(
            "flight_waiters", "Callers that one flight served", bounds=CALLERS
        )
        asked = make.counter("leases_asked", "Leases asked of Redis", labels=("outcome",))
        self._leases = from_zero(asked, LeaseOutcome)
        self._lease_duration = make.histogram(
            "lease_duration_seconds", "How long Redis took to answer", bounds=CALL_SECONDS
        )
        self._waited = make.counter(
            "replica_waited_seconds", "Time that flights waited for another replica, one poll each"
        )
        self._dropped = make.counter(
            "memory_dropped",
            "Copies in memory that may have been out of date, of one tenant or of all at once",
            labels=("cause", "whose"),
        )

    def observe(self, fact: ServingFact) -> None:
        """Counts."""
        match fact:
            case TokenServed():
                self._served[fact.source, fact.degraded].count += 1
            case FlightStarted():
                self._started.inc()
                self._in_flight.inc()
            case FlightJoined():
                self._joined.inc()
            case FlightEnded():
                self._end(fact)
            case LeaseAnswered():
                self._leases.labels(word(fact.outcome)).inc()
                self._lease_duration.observe(fact.duration.total_seconds())
            case WaitedForReplica():
                self._waited.inc(fact.duration.total_seconds())
            case MemoryDropped():
                self._dropped.labels(fact.cause, "all" if fact.tenant is None else "one").inc()

    def _end(self, fact: FlightEnded) -> None:
        self._in_flight.dec()
        self._ended.labels(fact.reason).inc()
        self._duration.observe(fact.duration.total_seconds())
        self._waiters.observe(fact.waiters)
