"""How Pleo is, by how it answers: it has no address that could be asked without harm.

A request that is overdue counts as a failure before it is over: the wire is listened to for many
seconds more (`service/wire.py`), and a Pleo that hangs would look well for as long.
"""

from __future__ import annotations

from typing import Final

from broker.domain.answers import CLIENT_SECRET, TOO_LATE
from broker.domain.facts import AttemptAnswered, AttemptOverdue, Fact
from broker.domain.history import AttemptOutcome
from broker.ops.health import CheckResult

OVERDUE: Final = "overdue"
"""The error while the last that was heard is that an answer does not come."""

_FAILING: Final = frozenset(
    {AttemptOutcome.UNKNOWN, AttemptOutcome.NOT_PROCESSED, AttemptOutcome.MISCONFIGURED}
)

_OURS: Final = frozenset({TOO_LATE, CLIENT_SECRET})
"""Codes of attempts that never reached for Pleo."""


class PleoWatch:
    """Upholds `ports.Observer`."""

    def __init__(self) -> None:
        """Supposes that all is well."""
        self._error = ""

    def observe(self, fact: Fact) -> None:
        """Takes note of an answer, and of one that does not come."""
        match fact:
            case AttemptOverdue():
                self._error = OVERDUE
            case AttemptAnswered() if fact.error not in _OURS:
                is_failing = fact.outcome in _FAILING
                self._error = (fact.error or fact.outcome.value) if is_failing else ""
            case _:
                pass

    async def probe(self) -> CheckResult:
        """Returns what was heard last."""
        return CheckResult(error=self._error)
