"""What is counted, for Prometheus: an observer of facts, of calls and of health.

Each instance has a registry of its own, so that several brokers in one process stay apart. Bounds
of labels: `instruments.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from datetime import timedelta

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from broker import __version__
from broker.domain.facts import (
    AttemptAnswered,
    AttemptClaimed,
    AttemptOverdue,
    AttemptSending,
    AttemptSettled,
    BreakerMoved,
    DefectMet,
    EscrowAdopted,
    EscrowsUnreachable,
    EscrowWritten,
    EvidenceUnread,
    Fact,
    FilesLoaded,
    FilesRefused,
    FlightEnded,
    FlightJoined,
    FlightStarted,
    GrantRevoked,
    GuardMoved,
    HistoryLost,
    KeysRewrapped,
    LeaseAnswered,
    LoopFailed,
    MemoryDropped,
    PastChanged,
    ReauthBecameRequired,
    RejectionReported,
    RenewalEnded,
    SealedValueUnreadable,
    SettlementDelayed,
    TokenServed,
    WaitedForReplica,
    WrittenBack,
)
from broker.ops.attempt_metrics import AttemptMetrics
from broker.ops.call_metrics import CallMetrics
from broker.ops.census_metrics import CensusMetrics
from broker.ops.escrow_metrics import EscrowMetrics
from broker.ops.files_metrics import FilesMetrics
from broker.ops.fleet_metrics import FleetMetrics
from broker.ops.health import HealthSnapshot
from broker.ops.instruments import LAG_SECONDS, Instruments
from broker.ops.keys_metrics import KeysMetrics
from broker.ops.renewal_metrics import RenewalMetrics
from broker.ops.serving_metrics import ServingMetrics
from broker.ops.trouble_metrics import TroubleMetrics
from broker.rpc.short_way import GET
from broker.store.census import Census
from broker.store.pool import Pool


class Metrics:
    """Upholds `broker.ports.Observer` and `broker.rpc.observing.CallObserver`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """To be shown by `broker.ops.server`."""

        self._make = make = Instruments(registry=self.registry)
        self._calls = CallMetrics(make)
        self._from_memory = self._calls.ended(GET, "OK")
        self._serving = ServingMetrics(make)
        self._renewals = RenewalMetrics(make)
        self._attempts = AttemptMetrics(make)
        self._escrows = EscrowMetrics(make)
        self._fleet = FleetMetrics(make)
        self._files = FilesMetrics(make)
        self._keys = KeysMetrics(make)
        self._trouble = TroubleMetrics(make)
        self._ready = make.gauge("ready", "Whether callers may be sent to this replica")
        self._draining = make.gauge("draining", "Whether this replica is on its way out")
        self._up = make.gauge(
            "dependency_up", "Whether a check of this replica is good", labels=("dependency",)
        )
        self._census = CensusMetrics(make)
        self._lag = make.histogram(
            "event_loop_lag_seconds",
            "How late timers came, asked twice a second",
            bounds=LAG_SECONDS,
        )
        make.says("build", "Which broker this is", version=__version__)
        _describe_process(self.registry)

    def observe(self, fact: Fact) -> None:
        """Counts a fact."""
        match fact:
            case (
                TokenServed()
                | FlightStarted()
                | FlightJoined()
                | FlightEnded()
                | LeaseAnswered()
                | WaitedForReplica()
                | MemoryDropped()
            ):
                self._serving.observe(fact)
            case RenewalEnded():
                self._renewals.observe(fact)
            case (
                AttemptClaimed()
                | AttemptSending()
                | AttemptOverdue()
                | AttemptAnswered()
                | AttemptSettled()
                | SettlementDelayed()
            ):
                self._attempts.observe(fact)
            case EscrowWritten() | EscrowAdopted() | EscrowsUnreachable() | WrittenBack():
                self._escrows.observe(fact)
            case BreakerMoved() | GuardMoved() | PastChanged() | EvidenceUnread():
                self._fleet.observe(fact)
            case FilesLoaded() | FilesRefused():
                self._files.observe(fact)
            case KeysRewrapped() | SealedValueUnreadable():
                self._keys.observe(fact)
            case ReauthBecameRequired() | GrantRevoked() | RejectionReported():
                self._trouble.observe(fact)
            case HistoryLost() | LoopFailed() | DefectMet():
                self._trouble.observe(fact)

    def call_ended(
        self,
        *,
        method: str,
        code: str,
        reason: str,
        duration: timedelta,
        tenant: str | None,  # noqa: ARG002 - no series for each customer
    ) -> None:
        """Counts a call, whoever it was about."""
        self._calls.call_ended(method=method, code=code, reason=reason, duration=duration)

    def token_from_memory(self, seconds: float, *_: object) -> None:
        """Counts a call and its token, for those that nobody else is told of (`rpc/short_way`)."""
        self._from_memory.count(seconds)
        self._serving.from_memory.count += 1

    def health_changed(self, snapshot: HealthSnapshot) -> None:
        """Takes note of how this replica is; a listener for `Health.on_change`."""
        self._ready.set(snapshot.is_ready)
        self._draining.set(snapshot.is_draining)
        for state in snapshot.checks:
            self._up.labels(state.name).set(state.is_good)

    def watch_holdings(self, holdings: Sized) -> None:
        """Shows how many attempts this replica must not die with. Once for each instance."""
        self._make.read(
            "attempts_held",
            "Attempts claimed and not settled, whose tokens only this replica may have",
            now=lambda: len(holdings),
        )

    def watch_log(self, lost: Callable[[], int]) -> None:
        """Shows how many lines of the log were lost. Once for each instance."""
        self._make.read_total(
            "log_lines_dropped", "Lines of the log that its reader was too slow for", now=lost
        )

    def watch_disclosures(self, disclosures: Sized, *, lost: Callable[[], int]) -> None:
        """Shows how many wait to be written, and were lost. Once for each instance."""
        self._make.read(
            "disclosures_pending",
            "Pairs of tenant and caller that were given tokens, and are not on record yet",
            now=lambda: len(disclosures),
        )
        self._make.read_total(
            "disclosures_lost",
            "Tokens handed out that are on no record, for want of room",
            now=lost,
        )

    def watch_escrows(self, escrows: Sized) -> None:
        """Shows how many escrows were read and are not stored yet. Once for each instance."""
        self._make.read(
            "escrows_held",
            "Escrows that this replica has read, and that are neither stored nor stale",
            now=lambda: len(escrows),
        )

    def watch_unreadable(self, records: Sized) -> None:
        """Shows how many sealed values are known not to open. Once for each instance."""
        self._make.read(
            "unreadable_records",
            "Sealed values that this replica met within the hour and that do not open",
            now=lambda: len(records),
        )

    def census_taken(self, census: Census | None) -> None:
        """Shows how many grants there are; None: another replica does."""
        self._census.show(census)

    def lagged(self, seconds: float) -> None:
        """Counts how late a timer came."""
        self._lag.observe(seconds)

    def watch_pool(self, pool: Pool) -> None:
        """Shows how many connections callers' work has. Once for each instance."""
        self._make.read(
            "database_connections_used", "Connections lent right now", now=lambda: pool.used
        )
        self._make.read(
            "database_connections_open", "Connections to PostgreSQL", now=lambda: pool.opened
        )
        self._make.read("database_connections_limit", "Connections at most", now=lambda: pool.most)

    def watch_keyset(self, modified_at: Callable[[], float]) -> None:
        """Shows when the keyset's file was last written. Once for each instance."""
        self._make.read(
            "keyset_modified_timestamp_seconds",
            "When the keyset in force was written, as its file says",
            now=modified_at,
        )


def _describe_process(registry: CollectorRegistry) -> None:
    """Shows memory, processor time, open files and the garbage collector; what the system tells."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
