"""Does `import`: takes over refresh tokens, a few at a time, and tells of each what became of it.

Tokens come from standard input or a file, never from the arguments, and leave over gRPC alone
(law 7). Retries nothing and keeps no record of its own: the broker knows a tenant's token again
when it comes a second time, so the whole file may be given again.
"""

from __future__ import annotations

import getpass
import queue
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeAlias

import grpc

from broker.cli.answers import show_grant
from broker.cli.calling import DEADLINE_SECONDS, CallFailed, broker_channel, failure_of
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.import_lines import BadLine, GoodLine, Line, check_request, read_lines
from broker.cli.import_results import ImportResult, ended, invalid, show_result, summary, valid
from broker.cli.progress import progress_bar
from broker.cli.reading import standard_input
from broker.cli.showing import say
from broker.config.sources import without_newline
from broker.v1.grant_service_pb2 import Grant, ImportGrantRequest, ImportGrantResponse
from broker.v1.grant_service_pb2_grpc import GrantServiceStub

_Future: TypeAlias = "grpc.Future[ImportGrantResponse]"  # no generic where it is run
_End: TypeAlias = tuple[GoodLine, _Future]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to import."""

    dry_run: bool
    concurrency: int
    as_json: bool


def import_one(tenant: str, environ: Mapping[str, str], *, replace: bool, manner: Manner) -> None:
    """Takes over the one refresh token of standard input.

    Raises:
        CommandFailed: nothing was imported.
    """
    request = ImportGrantRequest(tenant=tenant, refresh_token=_read_token(), replace=replace)
    problems = check_request(request)
    if problems:
        raise CommandFailed("; ".join(problems), status=ExitStatus.WRONG_USE)
    if manner.dry_run:
        show_result(valid(GoodLine(number=1, request=request)), as_json=manner.as_json)
        return
    with broker_channel(environ) as channel:
        answer = GrantServiceStub(channel).ImportGrant(request, timeout=DEADLINE_SECONDS)
    show_grant(answer.grant, as_json=manner.as_json)


def import_file(path: Path, environ: Mapping[str, str], *, manner: Manner) -> None:
    """Takes over what the lines of a file say, or of standard input where the path is `-`.

    Raises:
        CommandFailed: not every line was imported; each has said what became of it.
    """
    with _opened(path) as file:
        lines = read_lines(file)
    results: list[ImportResult] = []
    with progress_bar(len(lines)) as advance:
        for result in _results(lines, environ, manner):
            results.append(result)
            show_result(result, as_json=manner.as_json)
            advance()
    say(summary(results))
    if not all(result.is_good for result in results):
        raise CommandFailed(
            "not every line was imported",
            hint="mend what each line says and give the whole file again: what was imported stays",
        )


def _results(
    lines: Sequence[Line], environ: Mapping[str, str], manner: Manner
) -> Iterator[ImportResult]:
    good = [line for line in lines if isinstance(line, GoodLine)]
    yield from (invalid(line) for line in lines if isinstance(line, BadLine))
    if manner.dry_run or not good:
        yield from map(valid, good)
        return
    with broker_channel(environ) as channel:
        yield from _import_all(channel, good, concurrency=manner.concurrency)


def _import_all(
    channel: grpc.Channel, lines: Iterable[GoodLine], *, concurrency: int
) -> Iterator[ImportResult]:
    """Keeps so many calls under way; gives each one's end as it comes."""
    call = GrantServiceStub(channel).ImportGrant
    ends: queue.SimpleQueue[_End] = queue.SimpleQueue()
    under_way = 0
    for line in lines:
        if under_way == concurrency:
            yield _end_of(*ends.get())
            under_way -= 1
        future = call.future(line.request, timeout=DEADLINE_SECONDS)
        future.add_done_callback(partial(_note, ends, line))
        under_way += 1
    for _ in range(under_way):
        yield _end_of(*ends.get())


def _note(ends: queue.SimpleQueue[_End], line: GoodLine, future: _Future) -> None:
    ends.put((line, future))


def _end_of(line: GoodLine, future: _Future) -> ImportResult:
    error = future.exception()
    end: Grant | CallFailed
    if error is None:
        end = future.result().grant
    elif isinstance(error, grpc.RpcError):
        end = failure_of(error)
    else:
        raise error
    return ended(line, end)


def _read_token() -> str:
    given = standard_input()
    try:
        if given.isatty():
            typed = getpass.getpass("Refresh token (not shown): ", stream=sys.stderr)
            typed.encode()  # some locales let anything through
            return typed
        return without_newline(given.read().decode())
    except UnicodeError:  # whose text quotes what it does not like
        raise CommandFailed(
            "standard input: must be text in UTF-8", status=ExitStatus.WRONG_USE
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield standard_input()
        return
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", status=ExitStatus.WRONG_USE) from None
