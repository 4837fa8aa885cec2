"""The token bucket of each caller."""

from __future__ import annotations

import pytest

from broker.rpc.rate import RateLimit


@pytest.fixture
def limit() -> RateLimit:
    """Ten calls a second, five at once."""
    return RateLimit(rate=10, burst=5)


def taken_at_once(limit: RateLimit, caller: str, *, now: float) -> int:
    return next(count for count in range(1000) if limit.wait(caller, now=now) > 0)


def test_a_rested_caller_has_its_burst(limit: RateLimit) -> None:
    assert taken_at_once(limit, "a", now=100.0) == 5


def test_who_comes_too_early_is_told_when_there_is_room(limit: RateLimit) -> None:
    taken_at_once(limit, "a", now=100.0)

    assert limit.wait("a", now=100.0) == pytest.approx(0.1)
    assert limit.wait("a", now=100.04) == pytest.approx(0.06)
    assert limit.wait("a", now=100.1 + 1e-9) == 0


def test_a_refused_call_takes_nothing(limit: RateLimit) -> None:
    taken_at_once(limit, "a", now=100.0)
    for _ in range(50):
        limit.wait("a", now=100.05)

    assert limit.wait("a", now=100.1 + 1e-9) == 0


def test_a_steady_caller_at_the_rate_is_never_refused(limit: RateLimit) -> None:
    assert [limit.wait("a", now=100 + number / 10) for number in range(100)] == [0] * 100


def test_a_bucket_is_never_more_than_full(limit: RateLimit) -> None:
    taken_at_once(limit, "a", now=100.0)

    assert taken_at_once(limit, "a", now=10_000.0) == 5


def test_callers_are_strangers_to_each_other(limit: RateLimit) -> None:
    taken_at_once(limit, "a", now=100.0)

    assert taken_at_once(limit, "b", now=100.0) == 5


def test_who_has_rested_is_forgotten_and_who_is_busy_is_not(limit: RateLimit) -> None:
    for number in range(9999):
        limit.wait(f"rested {number}", now=100.0)
    taken_at_once(limit, "busy", now=150.0)

    limit.wait("one more", now=150.0)

    assert limit.wait("busy", now=150.0) > 0
    assert len(limit._full_at) == 2  # noqa: SLF001 - a bound that nothing else shows


def test_what_is_kept_is_bounded_though_all_are_busy(limit: RateLimit) -> None:
    for number in range(20_000):
        limit.wait(f"caller {number}", now=100.0)

    assert len(limit._full_at) <= 10_000  # noqa: SLF001 - as above
