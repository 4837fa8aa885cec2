"""Builds the examples that are not Python, where their toolchain and its packages can be had.

Without, the test is skipped and says what is missing; a build that fails otherwise is ours to mend.
What is built goes into the run's directory. Go keeps modules and compiled packages in the `.venv`,
which this clone owns: compiling gRPC anew takes most of a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from broker.dev.rundir import RunDirectory
from support.source import ROOT

EXAMPLES: Final = ROOT / "deploy" / "examples"

_UNREACHABLE: Final = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ERR_SOCKET_TIMEOUT|E40[134]"
    r"|dial tcp|no such host|i/o timeout|403 Forbidden|404 Not Found|module lookup disabled"
    r"|toolchain not available"
)

_BUF: Final = Path(sys.executable).parent / "buf"
"""Of the locked packages."""


def node_example(run: RunDirectory) -> list[str]:
    """Returns the command that runs the example in Node."""
    npm, node = _found("npm"), _found("node")
    directory = _copied("node", run)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", f"--cache={run.path / 'npm'}")
    installing = [npm, "ci", *quiet, "--fetch-retries=0", "--fetch-timeout=20000"]
    _done(installing, directory, NO_UPDATE_NOTIFIER="1")
    return [node, str(directory / "caller.js")]


def go_example(run: RunDirectory) -> list[str]:
    """Returns the command that runs the example in Go."""
    go, directory = _found("go"), _copied("go", run)
    kept = _go_environment()
    cache = str(run.path / "buf")
    _done([str(_BUF), "generate"], directory, BUF_CACHE_DIR=cache, BUF_CONFIG_DIR=cache, **kept)
    _done([go, "build", "-o", "pleo-caller", "."], directory, **kept)
    return [str(directory / "pleo-caller")]


def grpcurl(version: str) -> str:
    """Returns the path of a grpcurl, built where there is none yet."""
    go, kept = _found("go"), _go_environment()
    wanted = Path(kept["GOBIN"], "grpcurl")
    if not wanted.exists():
        _done(
            [go, "install", f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{version}"], ROOT, **kept
        )
    return str(wanted)


def _go_environment() -> dict[str, str]:
    kept = ROOT / ".venv" / "go"
    return {
        "GOMODCACHE": str(kept / "modules"),
        "GOCACHE": str(kept / "built"),
        "GOBIN": str(kept / "bin"),
        # Else a `make clean` could not remove them.
        "GOFLAGS": "-modcacherw -buildvcs=false",
    }


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"there is no {program} on this machine")
    return path


def _copied(name: str, run: RunDirectory) -> Path:
    """Copies an example and the API, laid out as they are in the project."""
    directory = run.path / "deploy" / "examples" / name
    shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("node_modules"))
    (run.path / "protos").mkdir(exist_ok=True)
    shutil.copy(ROOT / "protos" / "released.binpb", run.path / "protos")
    return directory


def _done(command: list[str], directory: Path, **environment: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{Path(command[0]).name} waits for packages that do not come")
    if done.returncode != 0:
        assert _UNREACHABLE.search(done.stderr), done.stderr
        pytest.skip(f"{Path(command[0]).name} cannot reach its packages, or is not let in")
