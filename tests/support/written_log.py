"""A log that writes into memory, and reads back what it wrote."""

from __future__ import annotations

import io
import json
from typing import Any

from broker.config import LogFormat, LogLevel
from broker.domain.facts import Fact
from broker.ops.fact_log import FactLog
from broker.ops.logs import Log
from broker.ops.outlet import Direct


class WrittenLog:
    """A log at its most talkative, and the time as the sampling sees it."""

    def __init__(
        self, *, log_format: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.DEBUG
    ) -> None:
        self.stream = io.StringIO()
        self.log = Log(Direct(self.stream), log_format=log_format, level=level)
        self.now = 1000.0
        self.facts = FactLog(self.log, clock=lambda: self.now)

    @property
    def text(self) -> str:
        """All that was written."""
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of a JSON log."""
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, fact: Fact) -> dict[str, Any]:
        """Observes one fact, and returns its line."""
        self.facts.observe(fact)
        return self.lines[-1]
