"""How much of the fleet's rate is one replica's."""

from __future__ import annotations

import pytest

from broker.domain.share import NEWCOMERS, replicas_share


@pytest.mark.parametrize(("alive", "share"), [(0, 60), (1, 60), (2, 30), (3, 20)])
def test_who_is_counted_has_an_equal_part(alive: int, share: float) -> None:
    assert replicas_share(60, alive=alive, is_new=False) == share


@pytest.mark.parametrize("alive", [0, 1, 5])
def test_a_newcomer_has_a_tenth_however_few_it_sees(alive: int) -> None:
    assert replicas_share(60, alive=alive, is_new=True) == 60 / NEWCOMERS


def test_a_newcomer_among_many_has_no_more_than_they() -> None:
    assert replicas_share(60, alive=20, is_new=True) == 3


def test_at_a_low_rate_a_newcomer_sends_one_a_second() -> None:
    assert replicas_share(4, alive=1, is_new=True) == 1
    assert replicas_share(4, alive=8, is_new=True) == 0.5
