"""Files that are replaced: when they are taken, when not, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from broker.domain.facts import Fact, FilesLoaded, FilesRefused
from broker.rpc.reloading import Contents, FilesUnusableError, Reloaded


class Notes:
    """Remembers facts."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def observe(self, fact: Fact) -> None:
        self.facts.append(fact)


def parse(contents: Contents) -> str:
    text = b"+".join(contents).decode()
    if "bad" in text:
        raise FilesUnusableError("expected something good")
    return text


LOADED = FilesLoaded(what="words")
REFUSED = FilesRefused(what="words", error="expected something good")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def word(tmp_path: Path) -> Path:
    path = tmp_path / "word"
    path.write_text("first")
    return path


@pytest.fixture
def make(word: Path, notes: Notes) -> Callable[[], Reloaded[str]]:
    return lambda: Reloaded("words", [word], parse=parse, observer=notes)


async def look_twice(reloaded: Reloaded[str]) -> None:
    await reloaded.refresh()
    await reloaded.refresh()


async def test_what_is_there_at_first_is_in_force_and_told(
    make: Callable[[], Reloaded[str]], notes: Notes
) -> None:
    reloaded = make()

    await look_twice(reloaded)

    assert reloaded.current == "first"
    assert notes.facts == [LOADED]


async def test_a_change_counts_once_it_has_been_seen_twice(
    make: Callable[[], Reloaded[str]], word: Path, notes: Notes
) -> None:
    reloaded = make()
    word.write_text("second")

    await reloaded.refresh()
    assert reloaded.current == "first"
    await reloaded.refresh()

    assert reloaded.current == "second"
    assert notes.facts == [LOADED, LOADED]


async def test_a_file_that_is_still_written_alarms_nobody(
    make: Callable[[], Reloaded[str]], word: Path, notes: Notes
) -> None:
    reloaded = make()

    for text in ("ba", "bad", "bad, no: good"):
        word.write_text(text)
        await reloaded.refresh()

    assert notes.facts == [LOADED]
    assert reloaded.current == "first"


async def test_what_is_of_no_use_leaves_the_last_good_reading_and_is_told_once(
    make: Callable[[], Reloaded[str]], word: Path, notes: Notes
) -> None:
    reloaded = make()
    word.write_text("bad")

    await look_twice(reloaded)
    await look_twice(reloaded)

    assert reloaded.current == "first"
    assert notes.facts == [LOADED, REFUSED]


async def test_a_file_that_is_gone_leaves_the_last_good_reading(
    make: Callable[[], Reloaded[str]], word: Path, notes: Notes
) -> None:
    reloaded = make()
    word.unlink()

    await look_twice(reloaded)

    assert reloaded.current == "first"
    assert notes.facts[1:] == [
        FilesRefused(what="words", error=f"{word}: No such file or directory")
    ]


async def test_the_former_file_that_comes_back_is_told_as_good(
    make: Callable[[], Reloaded[str]], word: Path, notes: Notes
) -> None:
    reloaded = make()
    for text in ("bad", "first"):
        word.write_text(text)
        await look_twice(reloaded)

    assert reloaded.current == "first"
    assert notes.facts == [LOADED, REFUSED, LOADED]


async def test_a_symbolic_link_that_turns_is_a_change(tmp_path: Path, notes: Notes) -> None:
    """As Kubernetes mounts a secret: the file's own path stays what it was."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "word").write_text(name)
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "word").symlink_to("..data/word")
    reloaded = Reloaded("words", [tmp_path / "word"], parse=parse, observer=notes)

    (tmp_path / "..next").symlink_to("new")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await look_twice(reloaded)

    assert reloaded.current == "new"


def test_a_missing_file_is_named_at_the_start(tmp_path: Path, notes: Notes) -> None:
    missing = tmp_path / "missing"

    with pytest.raises(FilesUnusableError, match="missing: No such file"):
        Reloaded("words", [missing], parse=parse, observer=notes)


def test_a_file_without_end_is_not_read_to_its_end(notes: Notes) -> None:
    with pytest.raises(FilesUnusableError, match="expected at most"):
        Reloaded("words", [Path("/dev/zero")], parse=parse, observer=notes)
