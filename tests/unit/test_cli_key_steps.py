"""`keys add`, `promote`, `remove`: each writes a new file, loses no key, and says what is next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.cli import Ended, run_here
from support.keysets import add_key, promote_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keyset.json"
    assert run_here("keys", "generate", "--out", str(file)).status == 0
    return file


def keys(path: Path, *arguments: str) -> Ended:
    return run_here("keys", *arguments, environ={"BROKER_KEYSET_FILE": str(path)})


def ids_of(path: Path) -> list[int]:
    return [key["keyId"] for key in json.loads(path.read_text())["key"]]


def primary_of(path: Path) -> int:
    return int(json.loads(path.read_text())["primaryKeyId"])


@pytest.fixture
def two(path: Path) -> tuple[int, int]:
    """The older key, which seals, and a newer one, which does not."""
    return primary_of(path), add_key(path)


def test_adding_writes_another_file_beside_the_one_there_is(path: Path) -> None:
    before = path.read_bytes()

    ended = keys(path, "add", "--json")

    written = Path(ended.document["file"])
    (older,) = ids_of(path)
    newer = ids_of(written)[1]
    assert (path.read_bytes(), written.parent) == (before, path.parent)
    assert (written.name, primary_of(written)) == (f"keyset.added-{newer}.json", older)
    assert written.stat().st_mode & 0o777 == 0o600


def test_each_step_says_what_is_next(path: Path, two: tuple[int, int]) -> None:
    added = keys(path, "add")
    promoted = keys(path, "promote", str(two[1]))
    promote_key(path, two[1])
    removed = keys(path, "remove", str(two[0]), "--the-rows-are-gone")

    assert all(ended.stderr.startswith("next: roll this file out") for ended in (added, promoted))
    assert "then: token-broker keys promote " in added.stderr
    assert "then: token-broker keys rewrap" in promoted.stderr
    assert "backups" in removed.stderr


def test_no_key_is_ever_said(path: Path, two: tuple[int, int]) -> None:
    secrets = [key["keyData"]["value"] for key in json.loads(path.read_text())["key"]]

    said = keys(path, "add").said + keys(path, "promote", str(two[1])).said

    assert not any(secret in said for secret in secrets)


def test_promoting_changes_the_primary_key_alone(path: Path, two: tuple[int, int]) -> None:
    ended = keys(path, "promote", str(two[1]), "--json")

    written = Path(ended.document["file"])
    assert (ids_of(written), primary_of(written)) == (list(two), two[1])


def test_a_file_that_was_written_by_an_earlier_try_is_kept(
    path: Path, two: tuple[int, int]
) -> None:
    first, again = (keys(path, "promote", str(two[1])) for _ in range(2))

    assert (first.status, again.status) == (0, 1)
    assert "exists already" in again.stderr


def test_a_named_keyset_is_replaced_whole(path: Path) -> None:
    (older,) = ids_of(path)

    ended = keys(path, "add", "--output", str(path))

    assert ended.status == 0
    assert ids_of(path)[0] == older
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_named_keyset_with_a_key_of_its_own_is_kept(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    run_here("keys", "generate", "--out", str(other))
    before = other.read_bytes()

    ended = keys(path, "add", "--output", str(other))

    assert ended.status == 1
    assert f"would be lost: {ids_of(other)}" in ended.stderr
    assert other.read_bytes() == before


def test_a_named_file_that_is_no_keyset_is_kept(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")

    ended = keys(path, "add", "--output", str(other))

    assert (ended.status, other.read_text()) == (1, "mine")


def test_the_primary_key_is_not_removed(path: Path, two: tuple[int, int]) -> None:
    ended = keys(path, "remove", str(two[0]), "--the-rows-are-gone")

    assert ended.status == 1
    assert "promote another one first" in ended.stderr


def test_removing_is_refused_where_no_broker_can_be_asked(path: Path, two: tuple[int, int]) -> None:
    environ = {"BROKER_KEYSET_FILE": str(path), "BROKER_ADDRESS": "not.on.loopback:1"}

    ended = run_here("keys", "remove", str(two[1]), environ=environ)

    assert ended.status == 2
    assert ids_of(path) == list(two)
    assert list(path.parent.iterdir()) == [path]


def test_a_person_may_say_that_the_rows_are_gone(path: Path, two: tuple[int, int]) -> None:
    ended = keys(path, "remove", str(two[1]), "--the-rows-are-gone", "--json")

    assert ids_of(Path(ended.document["file"])) == [two[0]]


@pytest.mark.parametrize("step", ["promote", "remove"])
def test_a_key_that_is_not_there_is_refused(path: Path, step: str) -> None:
    ended = keys(path, step, "1")

    assert ended.status == 1
    assert "no key 1" in ended.stderr


def test_a_wrapped_keyset_needs_a_package_that_wraps() -> None:
    ended = run_here("keys", "generate", "--wrapped")

    assert (ended.status, ended.stdout) == (1, "")
    assert "token_broker.keyset_unwrapper" in ended.stderr
