"""When a replica compares its keyset with the keys that rows are under."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.ops.checks import KeysetCheck, Subjects
from broker.ops.pleo_watch import PleoWatch
from broker.store.home import Home
from broker.store.keysets import read_keyset_file
from broker.store.sealing import Keyring, generate_keyset
from support.keysets import add_key, promote_key, remove_key

THE_HOME = Home(name="default", environment="custom", token_url="", client_id="")


class Rows:
    """A pool that knows which keys are in use, and counts how often it is asked."""

    def __init__(self) -> None:
        self.in_use: set[int] = set()
        self.asked = 0

    async def fetch(self, _query: str, *_: object) -> Sequence[dict[str, int]]:
        self.asked += 1
        return [{"key_id": key_id} for key_id in self.in_use]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keyset.json"
    file.write_text(generate_keyset())
    return file


@pytest.fixture
def rows(path: Path) -> Rows:
    rows = Rows()
    rows.in_use = set(read_keyset_file(path).key_ids)
    return rows


@pytest.fixture
def keyring(path: Path) -> Keyring:
    return Keyring.from_file(path)


@pytest.fixture
def check(keyring: Keyring, rows: Rows) -> KeysetCheck:
    subjects = Subjects(
        pool=rows,  # type: ignore[arg-type]  # one method of it
        refused_write=str,
        redis=None,  # type: ignore[arg-type]  # not asked
        keyring=keyring,
        home=THE_HOME,
        pleo=PleoWatch(),
        on_refused=lambda _: None,
        breaker=lambda: None,
        certificate=lambda: None,
    )
    return KeysetCheck(subjects)


async def test_the_rows_are_read_once_while_the_keyset_stays(
    check: KeysetCheck, rows: Rows
) -> None:
    found = [await check.probe() for _ in range(3)]

    assert (rows.asked, [each.error for each in found]) == (1, ["", "", ""])


async def test_a_key_in_use_that_is_missing_is_this_replicas_fault_until_it_is_there(
    check: KeysetCheck, rows: Rows
) -> None:
    rows.in_use.add(1)
    missing = await check.probe()
    rows.in_use.remove(1)

    assert (missing.error, missing.is_own_fault) == ("KEY_UNAVAILABLE", True)
    assert (await check.probe()).error == ""


async def test_a_key_that_a_row_wanted_in_vain_is_looked_for_again(
    check: KeysetCheck, rows: Rows, keyring: Keyring
) -> None:
    """A key was promoted that this replica was never given: it was ready before."""
    await check.probe()
    rows.in_use.add(1)
    keyring.can_open(1)

    found = [await check.probe() for _ in range(2)]
    rows.in_use.remove(1)
    after = [await check.probe() for _ in range(2)]

    assert [(each.error, each.is_own_fault) for each in found] == [("KEY_UNAVAILABLE", True)] * 2
    assert ([each.error for each in after], rows.asked) == (["", ""], 4)


async def test_a_keyset_that_changes_is_compared_again(
    check: KeysetCheck, rows: Rows, path: Path
) -> None:
    older = read_keyset_file(path).primary_key_id
    await check.probe()

    newer = add_key(path)
    promote_key(path, newer)
    await check.probe()
    remove_key(path, older)
    too_early = await check.probe()

    assert rows.asked == 3
    assert (too_early.error, too_early.is_own_fault) == ("KEY_UNAVAILABLE", True)


async def test_a_broken_file_is_told_and_takes_nothing_away(check: KeysetCheck, path: Path) -> None:
    await check.probe()
    path.write_text("half a f")

    found = await check.probe()

    assert (found.error, found.is_own_fault) == ("KEYSET_UNREADABLE", False)
