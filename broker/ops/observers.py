"""Several observers as one. One that raises hurts neither the others nor what they watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from broker.domain.facts import DefectMet, Fact
from broker.ports import Observer


class Observers:
    """Upholds `broker.ports.Observer` for observers that may not."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """`observers` are told in this order."""
        self._observers = tuple(observers)
        self.failures: Counter[str] = Counter()
        """How often an observer raised, by its class."""

    def observe(self, fact: Fact) -> None:
        """Tells everybody."""
        for each in self._observers:
            self._tell(each, fact)

    def _tell(self, observer: Observer, fact: Fact) -> None:
        try:
            observer.observe(fact)
        except Exception as error:  # noqa: BLE001 - see above; the others are told of it
            self._report(observer, error)

    def _report(self, failing: Observer, error: Exception) -> None:
        """Tells the others, the first time only: it will fail at every fact of that kind."""
        name = type(failing).__name__
        self.failures[name] += 1
        if self.failures[name] > 1:
            return
        # No caller was given an id.
        met = DefectMet(defect_id="", where=f"observer {name}", error=error)
        for each in self._observers:
            if each is not failing:
                self._tell(each, met)
