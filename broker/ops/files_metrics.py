"""Metrics of the files that may be replaced while the broker runs: certificate, policy, keys."""

from __future__ import annotations

from typing import TypeAlias

from broker.domain.facts import FilesLoaded, FilesRefused
from broker.ops.instruments import Instruments

FilesFact: TypeAlias = FilesLoaded | FilesRefused


class FilesMetrics:
    """Shows what is in force; a series begins when its files are read for the first time."""

    def __init__(self, make: Instruments) -> None:
        self._good = make.gauge(
            "files_good", "Whether the files there are now are those in force", labels=("what",)
        )
        self._refused = make.counter(
            "files_refused", "Replaced files that were of no use", labels=("what",)
        )
        self._expires = make.gauge(
            "files_expire_timestamp_seconds",
            "When what is in force expires: the certificate",
            labels=("what",),
        )

    def observe(self, fact: FilesFact) -> None:
        """Takes note."""
        self._good.labels(fact.what).set(isinstance(fact, FilesLoaded))
        match fact:
            case FilesRefused():
                self._refused.labels(fact.what).inc()
            case FilesLoaded():
                self._refused.labels(fact.what).inc(0)
                if fact.expires_at is not None:
                    self._expires.labels(fact.what).set(fact.expires_at.timestamp())
