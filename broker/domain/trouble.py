"""What the replica that explains a grant finds bad around it, in plain words.

Knows the names of the checks that a grant depends on, and what a person is to do about each. A
clock, a certificate or another tenant's record is no part of a grant's story: what is not named
here is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A check that is not good."""

    name: str
    """As `/readyz?verbose` has it: `postgres`."""

    error: str
    """Its code: `DISK_FULL`."""


_STORE: Final = frozenset({"postgres", "schema", "home"})
"""Without them nothing new can be kept, and so nothing is presented (law 2)."""

_SUBJECTS: Final = MappingProxyType(
    {
        "postgres": "PostgreSQL",
        "schema": "PostgreSQL's schema",
        "home": "whose database it is",
        "keyset": "its keyset",
        "pleo": "Pleo",
        "redis": "Redis",
    }
)

_OF_ERROR: Final = MappingProxyType(
    {
        "DISK_FULL": "Make room on PostgreSQL's disk.",
        "READ_ONLY": "Lead BROKER_DATABASE_URL to PostgreSQL's primary; or make room, where a"
        " managed server has closed a full disk.",
        "SCHEMA_TOO_OLD": "Bring the schema up to date (token-broker migrate).",
    }
)

_OF_CHECK: Final = MappingProxyType(
    {
        "keyset": "Roll the newest keyset out to this replica (token-broker keys status).",
        "pleo": "Look at Pleo's status, and at the network towards it (token-broker doctor tries"
        " the way); the broker tries again by itself.",
        "redis": "Bring Redis back. Callers are only slower without it.",
    }
)

_OF_STORE: Final = "Bring PostgreSQL back (token-broker doctor says what is wrong)."


def told(troubles: Iterable[Trouble]) -> Iterator[str]:
    """Returns a line each, of those that matter to a grant."""
    for each in troubles:
        if subject := _SUBJECTS.get(each.name):
            yield f"The replica that tells this finds {subject} in trouble: {each.error}."


def is_store_in(troubles: Iterable[Trouble]) -> bool:
    """Whether nothing new can be kept."""
    return any(each.name in _STORE for each in troubles)


def is_in(name: str, troubles: Iterable[Trouble]) -> bool:
    """Whether this check is among them."""
    return any(each.name == name for each in troubles)


def advice_on(troubles: Iterable[Trouble], *names: str) -> str:
    """Returns what to do about the checks of these names; empty: nothing.

    The store's checks fail together, and the first of them says enough.
    """
    told_of = [each for each in troubles if each.name in names]
    store = [each for each in told_of if each.name in _STORE][:1]
    rest = [each for each in told_of if each.name not in _STORE]
    return " ".join(_advice(each) for each in (*store, *rest))


def _advice(trouble: Trouble) -> str:
    return _OF_ERROR.get(trouble.error) or _OF_CHECK.get(trouble.name, _OF_STORE)
