"""Where load comes from: h2load, where it is installed, else Python's own client.

h2load shows no client certificate, so over mutual TLS it is always Python. What is compared are
processor seconds of the server, so the generator only has to keep it busy.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.source import ROOT

AT_ONCE: Final = 20
"""Calls under way: enough that the server is never idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to call, and with what."""

    port: int
    method: str
    request: bytes
    certificates: Path | None = None
    """None: clear text. Else a folder with `ca.crt`, `caller.crt` and `caller.key`."""


def generator_of(target: Target) -> str:
    """Returns the name of what calls this."""
    has_h2load = target.certificates is None and shutil.which("h2load") is not None
    return "h2load" if has_h2load else "Python"


async def send(target: Target, count: int) -> None:
    """Makes this many calls, from another process.

    Raises:
        RuntimeError: a call failed.
    """
    with _framed(target.request) as body:
        command = (
            _h2load(target, count, body)
            if generator_of(target) == "h2load"
            else _python(target, count)
        )
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    if process.returncode != 0 or _failed(said):
        raise RuntimeError(said.decode(errors="replace"))


def _python(target: Target, count: int) -> list[str]:
    command = [sys.executable, "-m", "bench.caller", str(target.port), target.method]
    command += [target.request.hex(), f"--count={count}", f"--at-once={AT_ONCE}"]
    return command + (["--certificates", str(target.certificates)] if target.certificates else [])


def _h2load(target: Target, count: int, body: Path) -> list[str]:
    command = ["h2load", f"-n{count}", "-c1", f"-m{AT_ONCE}", "-H", "te: trailers"]
    command += ["-H", "content-type: application/grpc", "-d", str(body)]
    return [*command, f"http://127.0.0.1:{target.port}{target.method}"]


def _failed(said: bytes) -> bool:
    # h2load's exit status is 0 whatever was answered.
    return b"requests:" in said and b" 0 failed, 0 errored" not in said


@contextmanager
def _framed(request: bytes) -> Iterator[Path]:
    """Writes a message as it travels: not compressed, and its length before it."""
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "request"
        body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
        yield body
