"""Writes `broker/v1` from the protos, and checks what callers rely on.

    python protos/generate.py              writes broker/v1 anew
    python protos/generate.py --check      changes nothing; fails where broker/v1 is not what the
                                           protos say, where buf finds fault with them, or where
                                           they break what was released
    python protos/generate.py --baseline   at a release: what the protos say now is released

Laws of this file:

1. The same protos and the same locked packages give the same bytes, on every machine and without a
   network: compiler, plugins, buf and the protos of Google all come as wheels.
2. The path of a proto below `protos` is the path of what is written for it below the project, so
   that the import path is the proto path, and generated modules import `from broker.v1 import …`.
3. Nothing is excepted from buf's rules; ours are held against them, Google's are not ours to mend.

`released.binpb` is a FileDescriptorSet without comments of the API as callers know it. What was
added since then is not in it and may still change; what is in it may not.
"""  # noqa: INP001 - a folder of protos is no package, this is its tool

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

PROTOS = Path(__file__).parent
PROJECT = PROTOS.parent
PACKAGE = Path("broker/v1")
RELEASED = PROTOS / "released.binpb"

# Not resolved: a virtual environment's python is a link to one that has none of its tools.
TOOLS = Path(sys.executable).parent


class ToolError(Exception):
    """A compiler or a plugin did not do its work; the message is what it printed."""


def generate(protos: Path, destination: Path) -> None:
    """Writes the Python of all protos below `destination`.

    Raises:
        ToolError: The protos do not compile.
    """
    plugins = [f"--plugin={TOOLS / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    messages = [f"--python_out={destination}", f"--mypy_out=quiet:{destination}"]
    services = [f"--grpc_python_out={destination}", f"--mypy_grpc_out=quiet:{destination}"]
    _protoc(protos, *plugins, *messages, *_names(protos, "*.proto"))
    _protoc(protos, *plugins, *services, *_names(protos, "*_service.proto"))


def image(protos: Path) -> bytes:
    """Returns the protos and all that they import as a FileDescriptorSet, with comments.

    Raises:
        ToolError: The protos do not compile.
    """
    return _descriptors(protos, "--include_source_info")


def released(protos: Path) -> bytes:
    """Returns what `released.binpb` is to hold after a release of these protos.

    Raises:
        ToolError: The protos do not compile.
    """
    return _descriptors(protos)


def stale(protos: Path, project: Path) -> list[str]:
    """Returns the files below `project` that are not what the protos say, sorted.

    Raises:
        ToolError: The protos do not compile.
    """
    with tempfile.TemporaryDirectory() as scratch:
        generate(protos, Path(scratch))
        wanted, present = _written(Path(scratch)), _written(project)
    return sorted(
        name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
    )


def lint(protos: Path) -> str:
    """Returns what buf finds fault with, one line each; nothing where all is well.

    Raises:
        ToolError: The protos do not compile.
    """
    return _buf("lint", image(protos))


def breaking(protos: Path, baseline: Path = RELEASED) -> str:
    """Returns where the protos break the baseline, one line each; nothing where they do not.

    Raises:
        ToolError: The protos do not compile.
    """
    return _buf("breaking", image(protos), "--against", str(baseline))


def write(protos: Path, project: Path) -> None:
    """Writes `broker/v1` anew below `project`, and removes what no proto stands for any more.

    Raises:
        ToolError: The protos do not compile; then nothing is changed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        generate(protos, Path(scratch))
        wanted = _written(Path(scratch))
    for name in _written(project).keys() - wanted.keys():
        (project / name).unlink()
    for name, text in wanted.items():
        (project / name).write_bytes(text)


def check(protos: Path, project: Path) -> str:
    """Returns all that is wrong, for people; nothing where all is well.

    Raises:
        ToolError: The protos do not compile.
    """
    old = "".join(
        f"{name} is not what the protos say: run `make proto`\n" for name in stale(protos, project)
    )
    return old + lint(protos) + breaking(protos)


def main(arguments: Sequence[str] | None = None) -> None:
    """Does what the arguments say; ends the process with status 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="Writes broker/v1 from the protos.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="change nothing, say what is wrong")
    what.add_argument("--baseline", action="store_true", help="what the protos say is released")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.check:
            sys.exit(check(PROTOS, PROJECT) or None)
        elif chosen.baseline:
            RELEASED.write_bytes(released(PROTOS))
        else:
            write(PROTOS, PROJECT)
    except ToolError as error:
        sys.exit(str(error))


def _names(protos: Path, pattern: str) -> list[str]:
    """Returns protos by the names that they are imported by."""
    return sorted(path.relative_to(protos).as_posix() for path in (protos / PACKAGE).glob(pattern))


def _written(directory: Path) -> dict[str, bytes]:
    """Returns what protoc wrote below a directory, by its path there."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in (directory / PACKAGE).glob("*_pb2*.py*")
    }


def _descriptors(protos: Path, *options: str) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "image.binpb")
        descriptors = ["--include_imports", f"--descriptor_set_out={target}", *options]
        _protoc(protos, *descriptors, *_names(protos, "*.proto"))
        return target.read_bytes()


def _protoc(protos: Path, *arguments: str) -> None:
    google = distribution("googleapis-common-protos").locate_file("")
    includes = [f"--proto_path={protos}", f"--proto_path={google}"]
    done = _run(sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments)
    if done.returncode != 0:
        raise ToolError(done.stderr)


def _buf(command: str, descriptors: bytes, *arguments: str) -> str:
    """Returns what buf prints about our files in an image: its findings, or why it found none."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "image.binpb")
        target.write_bytes(descriptors)
        # Without, buf would keep things in the home directory.
        elsewhere = {"BUF_CACHE_DIR": scratch, "BUF_CONFIG_DIR": scratch}
        ours = ["--config", str(PROTOS / "buf.yaml"), "--path", PACKAGE.as_posix()]
        done = _run(str(TOOLS / "buf"), command, str(target), *ours, *arguments, **elsewhere)
    said = done.stdout + done.stderr
    return "" if done.returncode == 0 else said or f"buf {command} failed and did not say why\n"


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - programs of the locked packages, arguments of our own
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    main()
