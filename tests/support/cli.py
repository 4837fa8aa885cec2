"""Runs the command line: within this process, or as a process of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Final

from broker.cli.app import run

_PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it has said."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All of it."""
        return self.stdout + self.stderr

    @property
    def document(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        """The one JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def documents(self) -> list[Any]:
        """The lines of NDJSON on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run_here(*arguments: str, environ: Mapping[str, str] | None = None, stdin: str = "") -> Ended:
    """Runs a command in this process and thread, which must not run an event loop."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), _reading(stdin):
        status = run(arguments, environ={} if environ is None else environ)
    return Ended(status=int(status), stdout=out.getvalue(), stderr=err.getvalue())


async def run_beside(
    *arguments: str, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> Ended:
    """Runs a command in this process, beside the event loop."""
    return await asyncio.to_thread(run_here, *arguments, environ=environ, stdin=stdin)


@contextmanager
def _reading(text: str) -> Iterator[None]:
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
    try:
        yield
    finally:
        sys.stdin = before


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A command as a process of its own."""

    process: asyncio.subprocess.Process

    async def told(self, start: str) -> str:
        """Waits for a line on stderr that begins so, and returns it."""
        assert self.process.stderr is not None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for line in self.process.stderr:
                if line.decode().strip().startswith(start):
                    return line.decode().strip()
        raise AssertionError(f"ended without a line that begins with {start!r}")

    def give(self, stdin: str) -> None:
        """Gives it all of its standard input, and does not wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(stdin.encode())
        self.process.stdin.close()

    def interrupt(self) -> None:
        """Presses Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    async def end(self, stdin: str = "") -> Ended:
        """Gives it its standard input, and waits for its end."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            out, err = await self.process.communicate(stdin.encode())
        assert self.process.returncode is not None
        return Ended(
            status=self.process.returncode,
            # None where they lead elsewhere.
            stdout=(out or b"").decode(),
            stderr=(err or b"").decode(),
        )


@asynccontextmanager
async def started(
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
) -> AsyncIterator[Running]:
    """Starts a command as a process of its own, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *arguments,
        env=own_environ() | dict(environ or {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield Running(process=process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def own_environ() -> dict[str, str]:
    """What a command of its own starts with: nothing of ours, and nothing that adds words."""
    # asyncio's debugging says on standard error, which is compared, that a machine was busy.
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BROKER_") and name != "PYTHONASYNCIODEBUG"
    }
