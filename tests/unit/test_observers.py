"""Several observers as one, some of which do not do as they must."""

from __future__ import annotations

from datetime import timedelta

from broker.domain.facts import Fact, FlightEnded, LoopFailed
from broker.ops.observers import Observers
from broker.ports import Observer
from support.facts import THE_SECRET
from support.written_log import WrittenLog

OUTAGE = LoopFailed(loop="news", error="STORE_UNAVAILABLE")


class Broken:
    """An observer that does not do as it must."""

    def __init__(self) -> None:
        self.asked = 0

    def observe(self, _fact: Fact, /) -> None:
        self.asked += 1
        raise RuntimeError(THE_SECRET)


class Remembering:
    """An observer that does."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def observe(self, fact: Fact) -> None:
        self.facts.append(fact)


def test_all_observers_are_told_in_order() -> None:
    told: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def observe(self, _fact: Fact, /) -> None:
            told.append(self.name)

    Observers([Named("first"), Named("second")]).observe(OUTAGE)

    assert told == ["first", "second"]


def test_an_observer_that_raises_hides_nothing_from_the_others() -> None:
    broken, remembering = Broken(), Remembering()
    observers = Observers([broken, remembering])

    observers.observe(OUTAGE)
    observers.observe(OUTAGE)

    assert [fact for fact in remembering.facts if isinstance(fact, LoopFailed)] == [OUTAGE, OUTAGE]
    assert observers.failures == {"Broken": 2}


def test_an_observer_that_raises_is_a_defect_that_is_told_once() -> None:
    written = WrittenLog()
    observers = Observers([Broken(), written.facts])

    for _ in range(3):
        observers.observe(
            FlightEnded(tenant="a", flight=1, waiters=1, duration=timedelta(0), reason="")
        )

    defects = [line for line in written.lines if line["event"] == "defect_met"]
    assert [line["where"] for line in defects] == ["observer Broken"]
    assert THE_SECRET not in written.text


def test_observers_that_all_raise_are_asked_and_hurt_nobody() -> None:
    class AlsoBroken(Broken):
        pass

    first, second = Broken(), AlsoBroken()
    observer: Observer = Observers([first, second])

    observer.observe(OUTAGE)

    assert (first.asked, second.asked) == (2, 2)
