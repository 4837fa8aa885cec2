"""What became of each line that was to be imported, for people and for programs. No token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import typer

from broker.cli.answers import document
from broker.cli.calling import CallFailed
from broker.cli.import_lines import BadLine, GoodLine
from broker.cli.showing import printable, show_json_line
from broker.v1.grant_service_pb2 import Grant

Outcome: TypeAlias = Literal["imported", "valid", "failed", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """One line's end."""

    line: int
    tenant: str
    outcome: Outcome
    grant: Grant | None = None
    """Where it was imported."""

    reason: str = ""
    messages: Sequence[str] = ()
    """What is wrong; what to mend."""

    @property
    def is_good(self) -> bool:
        """Whether there is nothing left to do."""
        return self.outcome in {"imported", "valid"}


def invalid(line: BadLine) -> ImportResult:
    """It must be mended first."""
    return ImportResult(
        line=line.number, tenant=line.tenant, outcome="invalid", messages=line.problems
    )


def valid(line: GoodLine) -> ImportResult:
    """It could be imported."""
    return ImportResult(line=line.number, tenant=line.request.tenant, outcome="valid")


def ended(line: GoodLine, end: Grant | CallFailed) -> ImportResult:
    """The broker has answered, or has not."""
    number, tenant = line.number, line.request.tenant
    if isinstance(end, Grant):
        return ImportResult(line=number, tenant=tenant, outcome="imported", grant=end)
    messages = (end.message, end.hint) if end.hint else (end.message,)
    return ImportResult(
        line=number, tenant=tenant, outcome="failed", reason=end.reason, messages=messages
    )


def show_result(result: ImportResult, *, as_json: bool) -> None:
    """Prints the one line for it."""
    if as_json:
        show_json_line(_document(result))
    else:
        typer.echo("  ".join(filter(None, _words(result))))


def summary(results: Sequence[ImportResult]) -> str:
    """Returns how many there are of each outcome."""
    counts = Counter(result.outcome for result in results)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do"


def _words(result: ImportResult) -> tuple[str, ...]:
    generation = f"generation {result.grant.generation}" if result.grant else ""
    told = printable("; ".join(result.messages))
    return f"line {result.line}", result.tenant, result.outcome, generation, told


def _document(result: ImportResult) -> dict[str, object]:
    shown: dict[str, object] = {"line": result.line, "outcome": result.outcome}
    if result.tenant:
        shown["tenant"] = result.tenant
    if result.grant is not None:
        shown["grant"] = document(result.grant)
    if result.reason:
        shown["reason"] = result.reason
    if result.messages:
        shown["messages"] = list(result.messages)
    return shown
