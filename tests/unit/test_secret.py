"""Secrets: nothing but `reveal` gives one away."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict

import pytest

from broker.domain.secret import Secret
from support.grants import some_grant, some_issue

CLEAR = "fake-token-5f2c"


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(CLEAR)),
        str(Secret(CLEAR)),
        f"{Secret(CLEAR)}",
        f"{Secret(CLEAR)!r:>20}",
        f"{Secret(CLEAR):>20}",
        "%s" % Secret(CLEAR),  # noqa: UP031 - what old logging calls do
        repr({"token": [Secret(CLEAR)]}),
    ],
)
def test_a_secret_shows_itself_in_no_text(shown: str) -> None:
    assert "<secret>" in shown
    assert CLEAR not in shown


def test_a_format_is_applied_to_what_may_be_seen() -> None:
    assert f"{Secret(CLEAR):>10}" == "  <secret>"


@pytest.mark.parametrize("value", [some_grant(), some_issue()])
def test_what_holds_tokens_shows_none(value: object) -> None:
    shown = repr(value)

    assert "<secret>" in shown
    assert "fake-" not in shown


def test_a_secret_reveals_exactly_what_was_received() -> None:
    assert Secret(" a\tb\n").reveal() == " a\tb\n"


@pytest.mark.parametrize(
    "carry_off",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash, vars],
    ids=lambda each: each.__name__,
)
def test_a_secret_is_carried_off_by_nothing(carry_off: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        carry_off(Secret(CLEAR))

    assert CLEAR not in str(caught.value)


def test_a_grant_is_not_dumped_with_its_tokens() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        asdict(some_grant())


def test_secrets_are_equal_by_their_text() -> None:
    assert Secret(CLEAR) == Secret(CLEAR)
    assert Secret(CLEAR) != Secret(CLEAR + "x")


def test_a_secret_is_never_equal_to_its_text() -> None:
    assert Secret(CLEAR).__eq__(CLEAR) is NotImplemented
    assert Secret(CLEAR) != CLEAR


def test_secrets_that_no_encoding_knows_are_compared_all_the_same() -> None:
    lone_surrogate = "\ud800"

    assert Secret(lone_surrogate) == Secret(lone_surrogate)
    assert Secret(lone_surrogate) != Secret("\udfff")
