"""What happened in one schedule, line by line, and which law was broken first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from support.service import seconds_gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A law that did not hold."""

    law: str
    what: str


class Story:
    """The events of one schedule, in order. Names generations and attempts, never a token."""

    def __init__(self) -> None:
        """Begins with nothing told."""
        self.lines: list[str] = []
        self.broken: Broken | None = None
        self.over = asyncio.Event()
        """Set by the first broken law: what comes after it only follows from it."""

    def tell(self, who: str, what: str) -> None:
        """Adds a line."""
        self.lines.append(f"{seconds_gone():9.3f}  {who:<8} {what}")

    def break_law(self, law: str, what: str) -> None:
        """Notes that a law was broken."""
        self.tell("LAW", f"{law}: {what}")
        if self.broken is None:
            self.broken = Broken(law=law, what=what)
            self.over.set()
