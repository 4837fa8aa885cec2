"""The record of every presentation of every refresh token and code, and what it adds up to.

This is how the laws are checked from outside, so it counts what arrived, not what was honoured: a
credential that reached the wire was presented, whatever a fault made of the request afterwards.
Names companies, grants and generations; holds no secret. No clock, no I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from broker.sandbox.authorization_server import Outcome, Presented
from broker.sandbox.grants import Standing

Via = Literal["token", "introspect"]
"""At which endpoint it was shown."""


@dataclass(slots=True, kw_only=True)
class Presentation:
    """One refresh token or code, shown once, and what became of it."""

    sequence: int
    """In the order of arrival, from 1."""
    arrived_at: datetime
    via: Via
    presented: Presented
    """As it stood when it arrived."""
    overlaps: tuple[int, ...]
    """Earlier presentations of the same credential that were still open at this one's arrival."""
    faults: tuple[str, ...] = ()
    outcome: Outcome | Literal["not_processed"] = "not_processed"
    judged: Presented | None = None
    """As it stood when the server judged it; never judged: none."""
    has_killed: bool = False
    status: int | None = None
    """The HTTP status that was answered; no answer: none."""
    error: str | None = None
    """The OAuth error that was answered."""
    is_delivered: bool | None = None
    """Whether the whole answer went to a connection that was open; still under way: none. Whether
    the client read it, no server can know."""
    has_hung_up: bool = False
    """Whether the client closed the connection before it was answered."""
    finished_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client may still be waiting for it."""
        return self.finished_at is None and not self.has_hung_up

    @property
    def was_superseded(self) -> bool:
        """Whether it was superseded when it arrived, or when it was judged."""
        at_judgement = self.judged.standing if self.judged else None
        return "superseded" in (self.presented.standing, at_judgement)

    @property
    def standing(self) -> Standing:
        """Where the credential stood at its arrival."""
        return self.presented.standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What presentations add up to. `presentations` are of refresh tokens, `exchanges` of codes."""

    presentations: int
    presentations_of_superseded: int
    rotations: int
    exchanges: int
    consents: int
    grants_killed_by_reuse: int
    overlapping: int
    undelivered: int
    introspections: int
    introspections_of_superseded: int


class Record:
    """All presentations since the start or the last reset."""

    def __init__(self) -> None:
        """Start empty."""
        self.presentations: list[Presentation] = []
        self._open: list[Presentation] = []

    def arrived(self, presented: Presented, *, via: Via, now: datetime) -> Presentation:
        """Note that a credential was shown."""
        entry = Presentation(
            sequence=len(self.presentations) + 1,
            arrived_at=now,
            via=via,
            presented=presented,
            overlaps=self._open_ones(presented),
        )
        self.presentations.append(entry)
        self._open.append(entry)
        return entry

    def _open_ones(self, presented: Presented) -> tuple[int, ...]:
        self._open = [entry for entry in self._open if entry.is_open]
        return tuple(
            entry.sequence
            for entry in self._open
            if presented.name is not None and presented.name == entry.presented.name
        )

    def of(self, company: str) -> list[Presentation]:
        """List those of one company's credentials."""
        return [entry for entry in self.presentations if entry.presented.company == company]

    def counts(self, company: str | None = None) -> Counts:
        """Add up those of a company, or all."""
        return add_up(self.presentations if company is None else self.of(company))

    def by_company(self) -> dict[str, Counts]:
        """Add up for every company whose credentials were shown."""
        companies = {entry.presented.company for entry in self.presentations}
        return {name: self.counts(name) for name in sorted(filter(None, companies))}


def add_up(entries: Iterable[Presentation]) -> Counts:
    """Count."""
    tally: Counter[str] = Counter()
    for entry in entries:
        tally.update(_marks(entry))
    return Counts(
        presentations=tally["token refresh_token"],
        presentations_of_superseded=tally["token superseded"],
        rotations=tally["rotated"],
        exchanges=tally["token code"],
        consents=tally["exchanged"],
        grants_killed_by_reuse=tally["killed"],
        overlapping=tally["overlapping"],
        undelivered=tally["undelivered"],
        introspections=tally["introspect refresh_token"],
        introspections_of_superseded=tally["introspect superseded"],
    )


def _marks(entry: Presentation) -> list[str]:
    marks = [entry.outcome, f"{entry.via} {entry.presented.kind}"]
    if entry.was_superseded and entry.presented.kind == "refresh_token":
        marks.append(f"{entry.via} superseded")
    flags = {
        "killed": entry.has_killed,
        "overlapping": bool(entry.overlaps),
        "undelivered": entry.is_delivered is False,
    }
    return marks + [mark for mark, is_set in flags.items() if is_set]
