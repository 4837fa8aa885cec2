"""Builds the examples that are not Python, where their toolchain and its packages can be had.

`make callers` builds them; a test runs what was built, and is skipped with a word where nothing
was. So no test waits for a network or a compiler: gRPC for Go takes a minute of both cores, and
`make test` begins with the example in Node alone. All is kept in the `.venv`, which this clone
owns, in folders named after what they were built from: an example that has changed is built anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from support.source import ROOT

EXAMPLES: Final = ROOT / "deploy" / "examples"

_RELEASED: Final = ROOT / "protos" / "released.binpb"

_VENV: Final = ROOT / ".venv"

_KEPT: Final = _VENV / "callers"

_UNREACHABLE: Final = re.compile(
    r"ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|ERR_SOCKET_TIMEOUT|E40[134]"
    r"|dial tcp|no such host|i/o timeout|403 Forbidden|404 Not Found|module lookup disabled"
    r"|toolchain not available"
)

_COMMAND_SECONDS: Final = 400
"""For one command: ten times what the longest takes where nobody else computes."""


class MissingError(Exception):
    """What cannot be had on this machine. A build that fails otherwise is ours to mend."""


def go_caller() -> list[str]:
    """Returns the command that runs the example in Go, or skips the test."""
    return [_built("go", "deploy/examples/go/pleo-caller")]


def node_caller() -> list[str]:
    """Returns the command that runs the example in Node, or skips the test."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    return [node, _built("node", "deploy/examples/node/caller.js")]


def grpcurl() -> str:
    """Returns the path of the grpcurl that the page names, or skips the test."""
    return _built("grpcurl", "grpcurl")


def build(*names: str) -> None:
    """Builds what is not built yet, and says what cannot be had; without names all."""
    for name in names or _BUILDS:
        made_in, place, making = _BUILDS[name], _place(name), _KEPT / f"making-{name}"
        if place.exists():
            continue
        print(f"Building {name} of deploy/examples, a minute the first time", flush=True)  # noqa: T201
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        try:
            made_in(making)
        except MissingError as missing:
            print(f"No tests of {name} in deploy/examples: {missing}.")  # noqa: T201
        else:
            # Named only now: what was interrupted is begun again.
            making.rename(place)


def _build_go(making: Path) -> None:
    go, directory = _found("go"), _copied("go", making)
    buf = {"BUF_CACHE_DIR": str(making / "buf"), "BUF_CONFIG_DIR": str(making / "buf")}
    _done([str(_VENV / "bin" / "buf"), "generate"], directory, **buf, **_go_environment())
    _done([go, "build", "-o", "pleo-caller", "."], directory, **_go_environment())


def _build_node(making: Path) -> None:
    npm, _, directory = _found("npm"), _found("node"), _copied("node", making)
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", f"--cache={making / 'npm'}")
    installing = [npm, "ci", *quiet, "--fetch-retries=0", "--fetch-timeout=20000"]
    _done(installing, directory, NO_UPDATE_NOTIFIER="1")


def _build_grpcurl(making: Path) -> None:
    environment = {**_go_environment(), "GOBIN": str(making)}
    _done([_found("go"), "install", _grpcurl_module()], making, **environment)


_BUILDS: Final[dict[str, Callable[[Path], None]]] = {
    "node": _build_node,
    "go": _build_go,
    "grpcurl": _build_grpcurl,
}


def _go_environment() -> dict[str, str]:
    kept = _VENV / "go"
    return {
        "GOMODCACHE": str(kept / "modules"),
        "GOCACHE": str(kept / "built"),
        # Else a `make clean` could not remove them.
        "GOFLAGS": "-modcacherw -buildvcs=false",
    }


def _grpcurl_module() -> str:
    """Returns what the page tells to install."""
    page = (EXAMPLES / "README.md").read_text()
    (module,) = re.findall(r"^go install (\S+/cmd/grpcurl@\S+)$", page, re.MULTILINE)
    return str(module)


def _place(name: str) -> Path:
    """Returns where it is, or will be, built from what is there now."""
    made_from = hashlib.sha256()
    if name == "grpcurl":
        made_from.update(_grpcurl_module().encode())
    else:
        for path in sorted(_sources(name)):
            made_from.update(path.read_bytes())
    return _KEPT / f"{name}-{made_from.hexdigest()[:12]}"


def _sources(name: str) -> list[Path]:
    files = (path for path in (EXAMPLES / name).iterdir() if path.is_file())
    # What a person built there is not in the way.
    return [_RELEASED, *(path for path in files if path.name != "pleo-caller")]


def _copied(name: str, making: Path) -> Path:
    """Copies an example and the API, laid out as they are in the project."""
    for path in _sources(name):
        copy = making / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return making / (EXAMPLES / name).relative_to(ROOT)


def _built(name: str, program: str) -> str:
    path = _place(name) / program
    if not path.exists():
        pytest.skip(f"{name} is not built: `make callers` does it, or says what is missing")
    return str(path)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise MissingError(f"there is no {program} on this machine")
    return path


def _done(command: list[str], directory: Path, **environment: str) -> None:
    program = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"{program} waits for packages that do not come") from None
    if done.returncode != 0:
        if not _UNREACHABLE.search(done.stderr):
            sys.exit(f"{program} failed:\n{done.stderr}")
        raise MissingError(f"{program} cannot reach its packages, or is not let in")


if __name__ == "__main__":
    build(*sys.argv[1:])
