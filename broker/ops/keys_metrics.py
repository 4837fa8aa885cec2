"""Metrics of what is sealed: values that do not open, and rows that were sealed anew."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts import KeysRewrapped, SealedValueUnreadable
from broker.ops.instruments import Instruments

KeysFact: TypeAlias = KeysRewrapped | SealedValueUnreadable


class KeysMetrics:
    """Counts; which values they are is in the log."""

    def __init__(self, make: Instruments) -> None:
        self._unreadable = make.counter(
            "unreadable_records_met",
            "Sealed values that were found not to open: moved, altered, or not ours",
        )
        self._rewrapped = make.counter("rows_rewrapped", "Rows that this replica sealed anew")

    def observe(self, fact: KeysFact) -> None:
        """Counts."""
        match fact:
            case SealedValueUnreadable():
                self._unreadable.inc()
            case KeysRewrapped():
                self._rewrapped.inc(fact.rewrapped)
