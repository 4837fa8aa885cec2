"""Files that may be replaced while the broker runs: the last good reading stays in force.

What changed is judged only when it has been seen twice in the same state, one look after the other:
so nobody is alarmed by a file that is half written, nor by a certificate whose key comes a moment
later. Kubernetes replaces a mounted secret by turning a symbolic link, which no watch on the files
themselves would see; therefore contents are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from broker.domain.facts import FilesLoaded, FilesRefused
from broker.ports import Observer

T = TypeVar("T")

RELOAD_SECONDS: Final = 2.0
"""Between two looks. A rule that is taken away holds for twice as long at most, and a few small
reads a second go unnoticed; Kubernetes itself takes up to a minute to bring a new file."""

_LARGEST_FILE: Final = 4 * 1024 * 1024
"""Bytes: ten thousand rules, and far more than any bundle of authorities. What is larger is
another file, and would be read every time again."""

Contents: TypeAlias = tuple[bytes, ...]
"""Of the files, in their order."""


class FilesUnusableError(ValueError):
    """A file is missing, or is not what was expected. Says which and what, never its content."""


class Refreshed(Protocol):
    """What is looked at again and again."""

    async def refresh(self) -> None:
        """Looks once. Never raises for what it finds."""
        ...


class Reloaded(Generic[T]):
    """Something that was read from files, as it is now."""

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        *,
        parse: Callable[[Contents], T],
        observer: Observer,
        expires_at: Callable[[T], datetime | None] = lambda _: None,
    ) -> None:
        """Reads for the first time. `what` names it in log and metrics; `parse` may take its time.

        Raises:
            FilesUnusableError: as `parse` may, or a file cannot be read.
        """
        self._what = what
        self._paths = tuple(paths)
        self._parse = parse
        self._observer = observer
        self._expires_at = expires_at
        contents = read_files(self._paths)
        # What was found: the contents, or why there are none.
        self._judged: Contents | str = contents
        self._seen: Contents | str = contents
        self.current = parse(contents)
        """Of the last good reading."""

        observer.observe(self._loaded())

    async def refresh(self) -> None:
        """Looks at the files once; reading and parsing are done beside the event loop."""
        fact = await asyncio.to_thread(self._look)
        if fact is not None:
            self._observer.observe(fact)

    def _look(self) -> FilesLoaded | FilesRefused | None:
        """Takes what is new, good, and as it was the last time."""
        found = self._found()
        is_settled, self._seen = found == self._seen, found
        if not is_settled or found == self._judged:
            return None
        self._judged = found
        try:
            self.current = self._parsed(found)
        except FilesUnusableError as error:
            return FilesRefused(what=self._what, error=str(error))
        return self._loaded()

    def _parsed(self, found: Contents | str) -> T:
        if isinstance(found, str):
            raise FilesUnusableError(found)
        return self._parse(found)

    def _found(self) -> Contents | str:
        try:
            return read_files(self._paths)
        except FilesUnusableError as error:
            return str(error)

    def _loaded(self) -> FilesLoaded:
        return FilesLoaded(what=self._what, expires_at=self._expires_at(self.current))


def read_files(paths: Sequence[Path]) -> Contents:
    """Returns what is in the files.

    Raises:
        FilesUnusableError: one cannot be read.
    """
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FilesUnusableError(f"{path}: {error.strerror}") from None
    if len(content) > _LARGEST_FILE:
        raise FilesUnusableError(f"{path}: expected at most {_LARGEST_FILE} bytes")
    return content
