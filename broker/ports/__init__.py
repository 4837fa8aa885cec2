"""What `service/` asks of the world. Each docstring is the contract that conformance suites test.

Time: durations are measured on the running event loop's clock (`loop.time()`, monotonic, seconds).
Deadlines and expiry are on PostgreSQL's clock, which only the store reads; nothing reads the
wall clock of this machine.
"""

from broker.ports.between import Announcements, Escrows, Leases, LeaseSeen, Resubscribed
from broker.ports.consents import ConsentStore
from broker.ports.fleet import AnsweredRefresh, FleetSnapshot, FleetStore, Guarded
from broker.ports.grants import (
    Beside,
    Change,
    ChangesPage,
    Conclude,
    GrantMoved,
    GrantStore,
    ListQuery,
    PutImport,
    Snapshot,
    Spend,
    Unspend,
)
from broker.ports.keys import EscrowKeys, KeyStore, RewrapBatch
from broker.ports.process import Chance, Observer
from broker.ports.provider import Introspection, Presentation, Provider, WireWindow
from broker.ports.records import Recorded, Records
from broker.ports.renewals import Due, Renewals

__all__ = [
    "Announcements",
    "AnsweredRefresh",
    "Beside",
    "Chance",
    "Change",
    "ChangesPage",
    "Conclude",
    "ConsentStore",
    "Due",
    "EscrowKeys",
    "Escrows",
    "FleetSnapshot",
    "FleetStore",
    "GrantMoved",
    "GrantStore",
    "Guarded",
    "Introspection",
    "KeyStore",
    "LeaseSeen",
    "Leases",
    "ListQuery",
    "Observer",
    "Presentation",
    "Provider",
    "PutImport",
    "Recorded",
    "Records",
    "Renewals",
    "Resubscribed",
    "RewrapBatch",
    "Snapshot",
    "Spend",
    "Unspend",
    "WireWindow",
]
