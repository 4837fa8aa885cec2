"""What one process of tests, or a run of `make chaos`, has looked through for secrets (law 7).

There is one ledger a process, because secrets are issued by whatever sandbox a test opens, and may
turn up anywhere. It counts, and says what was found; where to look is `support.media`'s affair.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from broker.sandbox.mint import issued_anywhere
from support.scanner import Hit, Scanner, is_secret

Part = tuple[str, bytes]
"""A medium, and some of what lies there."""

_MEGABYTE: Final = 1_000_000


@dataclass(slots=True, kw_only=True)
class Sums:
    """What one process has looked through, or several."""

    secrets: int = 0
    scanned: Counter[str] = field(default_factory=Counter)
    """Bytes, by medium."""

    hits: Counter[str] = field(default_factory=Counter)
    """By medium."""

    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Returns them as another process can be sent them."""
        return {
            "secrets": self.secrets,
            "scanned": dict(self.scanned),
            "hits": dict(self.hits),
            "seconds": self.seconds,
        }

    def add(self, plain: Mapping[str, Any]) -> None:
        """Adds those of another process."""
        self.secrets += plain["secrets"]
        self.scanned += Counter(plain["scanned"])
        self.hits += Counter(plain["hits"])
        self.seconds += plain["seconds"]

    def line(self) -> str:
        """Returns them in one line."""
        return (
            f"Law 7: {self.secrets} secrets searched for in {len(self.scanned)} media, "
            f"{self.scanned.total() / _MEGABYTE:.1f} MB, hits: {self.hits.total()} "
            f"({self.seconds:.1f} s)"
        )

    def table(self) -> list[str]:
        """Returns a line for each medium."""
        return [
            f"  {medium:<18} {size / _MEGABYTE:>9.3f} MB  hits: {self.hits[medium]}"
            for medium, size in sorted(self.scanned.items())
        ]


@dataclass(slots=True)
class Ledger:
    """Bytes by medium, secrets, hits."""

    scanned: Counter[str] = field(default_factory=Counter)
    hits: Counter[Hit] = field(default_factory=Counter)
    seconds: float = 0.0
    """Of the processor, for all that."""

    _others: dict[str, str] = field(default_factory=dict, repr=False)
    _waiting: list[Part] = field(default_factory=list, repr=False)

    def note(self, kind: str, value: str) -> None:
        """Remembers a secret that no sandbox has made nor seen."""
        self._others[value] = kind

    def keep(self, medium: str, content: bytes) -> None:
        """Remembers what passes by, to be looked through by the next scan."""
        self._waiting.append((medium, content))

    def secrets(self) -> dict[str, str]:
        """Returns all there are so far by their values, and what each is."""
        known = {each.value: each.kind for each in issued_anywhere()} | self._others
        return {value: kind for value, kind in known.items() if is_secret(value)}

    def scan(self, parts: Iterable[Part]) -> None:
        """Looks through parts of media, and what was kept, for all secrets there are so far."""
        waiting, self._waiting = self._waiting, []
        begin = time.process_time()
        scanner = Scanner(self.secrets())
        for medium, content in chain(waiting, parts):
            self.scanned[medium] += len(content)
            self.hits += scanner.hits(medium, content)
        self.seconds += time.process_time() - begin

    def told(self) -> list[str]:
        """Returns the hits, each as medium, form and kind."""
        return [
            f"{hit.kind} in {hit.medium}, {hit.encoding}, {count} times"
            for hit, count in sorted(self.hits.items())
        ]

    def sums(self) -> Sums:
        """Returns what there is to print."""
        hits = Counter[str]()
        for hit, count in self.hits.items():
            hits[hit.medium] += count
        return Sums(
            secrets=len(self.secrets()), scanned=self.scanned, hits=hits, seconds=self.seconds
        )


LEDGER: Final = Ledger()
