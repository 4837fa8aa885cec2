"""A caller that stays, in a process of its own: what it costs is not counted as the server's.

Also where h2load is installed: it is started anew for each measurement, shows no certificate and
knows no rate, so short measurements that take turns need this one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.load import AT_ONCE, Target
from support.source import ROOT

_LONGEST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of one line: a number of twenty for each call."""


@dataclass(frozen=True, slots=True)
class StandingCaller:
    """One that has connected."""

    process: Process

    async def as_fast(self, calls: int) -> Sequence[float]:
        """Makes so many calls as fast as it can; returns how many seconds each took."""
        return await self._told({"calls": calls})

    async def at_rate(self, rate: float, *, seconds: float) -> Sequence[float]:
        """Makes so many calls a second; returns how many seconds each took since it was due."""
        return await self._told({"rate": rate, "seconds": seconds})

    async def _told(self, what: dict[str, float]) -> Sequence[float]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(what).encode() + b"\n")
        answer = await stdout.readline()
        if not answer:
            raise RuntimeError("a caller failed; its standard error says why")
        took: list[float] = json.loads(answer)
        return took


@asynccontextmanager
async def standing_caller(
    target: Target, requests: Sequence[bytes] = ()
) -> AsyncIterator[StandingCaller]:
    """Starts one; `requests`: made in turn, and not the target's own."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "requests"
        told.write_text("\n".join(each.hex() for each in requests or (target.request,)))
        process = await asyncio.create_subprocess_exec(
            *_command(target, told),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_ANSWER,
        )
        try:
            yield StandingCaller(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()


def _command(target: Target, requests: Path) -> list[str]:
    command = [sys.executable, "-m", "bench.standing_caller", str(target.port), target.method]
    command += [str(requests), f"--at-once={AT_ONCE}"]
    return command + (["--certificates", str(target.certificates)] if target.certificates else [])
