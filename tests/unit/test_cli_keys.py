"""`keys`: a keyset is written once, for its owner, and shown by everything but its keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.store.sealing import Keyring
from support.cli import Ended, run_here


def status_of(path: Path, *arguments: str) -> Ended:
    return run_here("keys", "status", *arguments, environ={"BROKER_KEYSET_FILE": str(path)})


@pytest.fixture
def keyset(tmp_path: Path) -> Path:
    path = tmp_path / "keyset.json"
    assert run_here("keys", "generate", "--out", str(path)).status == 0
    return path


def test_a_keyset_goes_to_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "keyset.json"

    path.write_text(run_here("keys", "generate").stdout)

    Keyring.from_file(path).try_out()


def test_a_new_file_is_its_owners_alone(keyset: Path) -> None:
    assert keyset.stat().st_mode & 0o777 == 0o600
    Keyring.from_file(keyset).try_out()


def test_a_file_that_exists_is_never_overwritten(keyset: Path) -> None:
    before = keyset.read_bytes()

    ended = run_here("keys", "generate", "--out", str(keyset))

    assert ended.status == 1
    assert "exists already" in ended.stderr
    assert keyset.read_bytes() == before


@pytest.mark.parametrize("option", ["--out", "--output"])
def test_every_step_takes_both_names_of_its_file(tmp_path: Path, option: str) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"

    made = run_here("keys", "generate", option, str(first))
    environ = {"BROKER_KEYSET_FILE": str(first)}
    added = run_here("keys", "add", option, str(second), environ=environ)

    assert (made.status, added.status) == (0, 0)
    assert len(Keyring.from_file(second).describe()) == 2


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "keyset.json"
    link.symlink_to(tmp_path / "elsewhere")

    assert run_here("keys", "generate", "--out", str(link)).status == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ended = run_here("keys", "generate", "--out", str(tmp_path / "nowhere" / "keyset.json"))

    assert ended.status == 1
    assert "No such file or directory" in ended.stderr


def test_status_shows_the_keys_without_the_keys(keyset: Path) -> None:
    secret = json.loads(keyset.read_text())["key"][0]["keyData"]["value"]
    (described,) = Keyring.from_file(keyset).describe()

    ended = status_of(keyset, "--json")

    assert ended.document["keys"] == [
        {"key_id": described.key_id, "status": "ENABLED", "primary": True}
    ]
    assert secret not in ended.said


def test_status_is_a_table_for_people(keyset: Path) -> None:
    heading, row = status_of(keyset).stdout.splitlines()

    assert heading.split() == ["KEY", "ID", "STATUS", "PRIMARY"]
    assert row.split()[1:] == ["ENABLED", "primary"]


def test_generate_tells_of_the_file_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "keyset.json"

    ended = run_here("keys", "generate", "--out", str(path), "--json")

    assert ended.document["file"] == str(path)
    assert json.loads(path.read_text())["key"][0]["keyData"]["value"] not in ended.said


@pytest.mark.parametrize("content", [None, "{}", "correct-horse-battery"])
def test_what_is_no_keyset_fails(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keyset.json"
    if content is not None:
        path.write_text(content)

    ended = status_of(path)

    assert ended.status == 1
    assert str(path) in ended.stderr
    assert "correct-horse" not in ended.said


def test_status_without_a_file_is_wrong_use() -> None:
    ended = run_here("keys", "status")

    assert ended.status == 2
    assert "BROKER_KEYSET_FILE: expected a value" in ended.stderr
