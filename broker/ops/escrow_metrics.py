"""Metrics of pairs that PostgreSQL did not take, or lost, and what became of them."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts import EscrowAdopted, EscrowsUnreachable, EscrowWritten, WrittenBack
from broker.ops.instruments import Instruments, word

EscrowFact: TypeAlias = EscrowWritten | EscrowAdopted | EscrowsUnreachable | WrittenBack


class EscrowMetrics:
    """Counts what should never happen, each from zero."""

    def __init__(self, make: Instruments) -> None:
        self._written = make.counter(
            "escrows_written",
            "Pairs sent to Redis because PostgreSQL did not take them",
            labels=("acknowledged",),
        )
        self._adopted = make.counter(
            "escrows_adopted",
            "Escrows stored in their owner's place; with a reason: not needed any more",
            labels=("not_allowed",),
        )
        self._unreachable = make.counter(
            "escrows_unreachable",
            "Refreshes in doubt that could not look for escrows; presents: and went on blindly",
            labels=("presents",),
        )
        self._written_back = make.counter(
            "rows_written_back",
            "Grants that PostgreSQL had lost, stored again from memory; with a reason: not stored",
            labels=("not_allowed",),
        )
        for each in ("false", "true"):
            self._written.labels(each)
            self._unreachable.labels(each)

    def observe(self, fact: EscrowFact) -> None:
        """Counts."""
        match fact:
            case EscrowWritten():
                self._written.labels(str(fact.is_acknowledged).lower()).inc()
            case EscrowAdopted():
                self._adopted.labels(word(fact.not_allowed)).inc()
            case WrittenBack():
                self._written_back.labels(word(fact.not_allowed)).inc()
            case EscrowsUnreachable():
                self._unreachable.labels(str(fact.presents).lower()).inc()
