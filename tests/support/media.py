"""Where the secrets of a fleet may lie, all of it as bytes (law 7).

A fleet's media: PostgreSQL's rows, and its files with the log of writes; Valkey's keys, and its
file; all that brokers logged, the traces that they sent, the pages of their operations address,
their arguments and their environments; the statuses that clients met. Of servers that are not the
run's own, the files are out of reach. The sandbox is no medium: it is Pleo's side. Nor are the
files that secrets are given in, which is why `support.fleet` gives none in the environment.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg
import redis.asyncio

from support.law_seven import Part
from support.leaks import database_text, valkey_text

DUMP: Final = "PostgreSQL dump"
FILES: Final = "PostgreSQL files"
WAL: Final = "PostgreSQL WAL"
VALKEY: Final = "Valkey dump"
RDB: Final = "Valkey file"
LOGS: Final = "logs, debug"
TRACES: Final = "traces"
PAGES: Final = "metrics and pages"
ARGUMENTS: Final = "arguments"
ENVIRONMENT: Final = "environment"
REPRS: Final = "core reprs"

_NO_CORE: Final = ("broker.sandbox", "broker.dev", "broker.v1")
"""Pleo's side, and messages: an answer to a caller holds the token that was asked for."""


async def of_database(url: str) -> list[Part]:
    """Returns the rows of a database."""
    return [(DUMP, text.encode()) for text in (await database_text(url)).values()]


async def of_cluster(url: str, *, since: float = 0) -> Iterable[Part]:
    """Returns the files of a server of this run that have changed since, all writes on disk."""
    folder = parse_qs(urlsplit(url).query).get("host", [""])[0]
    cluster = Path(folder) / "cluster"
    if not cluster.is_dir():
        return []
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return _files(cluster.resolve(), since)


def _files(cluster: Path, since: float) -> Iterator[Part]:
    for path in cluster.rglob("*"):
        try:
            if path.is_file() and path.stat().st_mtime >= since:
                # Files of the log are as long as they may grow; the rest of one is empty.
                content = path.read_bytes().rstrip(b"\0")
                yield WAL if "pg_wal" in path.parts else FILES, content
        except FileNotFoundError:  # the server removes files while it runs
            continue


async def of_valkey(url: str, directory: Path) -> list[Part]:
    """Returns what a logical database holds; of a server below `directory`, its file as well."""
    parts = [(VALKEY, (await valkey_text(url)).encode("latin-1"))]
    async with redis.asyncio.from_url(url) as client:
        folder = Path(str((await client.config_get("dir"))["dir"]))
        if not folder.is_relative_to(directory.resolve()):
            return parts
        # Compressed, a secret could not be told from anything else.
        await client.config_set("rdbcompression", "no")
        parts += [(VALKEY, await client.dump(key) or b"") async for key in client.scan_iter()]
        await client.save()
    file = folder / "dump.rdb"
    parts.append((RDB, file.read_bytes()))
    file.unlink()  # or a server that is started again would read it
    return parts


def of_processes(pids: Iterable[int]) -> Iterator[Part]:
    """Gives the arguments and environments of processes, where the system shows them as Linux."""
    for pid in pids:
        for medium, name in ((ARGUMENTS, "cmdline"), (ENVIRONMENT, "environ")):
            path = Path(f"/proc/{pid}/{name}")
            if path.exists():
                yield medium, path.read_bytes()


def of_core() -> Iterator[Part]:
    """Gives how every living object of the broker's core shows itself."""
    gc.collect()
    for each in gc.get_objects():
        # By its type alone: an object may say of itself what it likes, a type of others too.
        room = str(type(each).__module__)
        if room.startswith("broker.") and not room.startswith(_NO_CORE):
            yield REPRS, "\n".join(_shown(each)).encode(errors="replace")


def _shown(each: object) -> list[str]:
    shown = [repr(each), str(each)]
    if isinstance(each, BaseException):
        shown += traceback.format_exception(each)
    return shown
