"""The previous release: its code beside ours, to run before, during and after an upgrade.

Taken out of the history of the clone that the tests run in. Where that is no git repository, or a
shallow one, whoever needs it is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from support.source import ROOT

PREVIOUS_RELEASE: Final = "ca1263a683216eb9445e794a292e8a4e262911da"
"""A tag or a commit, what an upgrade begins with. Each release names the one before it here. Until
there is a first one: the last commit with schema 3, so that there is something to migrate."""


def previous_release(directory: Path) -> Path:
    """Unpacks the previous release's code, and returns where."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git on this machine")
    packed = directory / "previous.tar"
    # Safe as it is: what is run is what the clone's owner has committed.
    asked = [git, "-c", "safe.directory=*", "archive", f"--output={packed}", PREVIOUS_RELEASE]
    archived = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if archived.returncode != 0:
        pytest.skip(f"no previous release in this clone's history: {archived.stderr.strip()}")
    unpacked = directory / "previous"
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, filter="data")
    return unpacked


def migrate_with(code: Path, database_url: str) -> None:
    """Runs a release's own `migrate`."""
    migrated = subprocess.run(
        [sys.executable, "-m", "broker", "migrate"],
        cwd=code,
        env={"BROKER_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr


def with_newest_schema(code: Path) -> None:
    """Has a release's tests begin with our schema: its `migrate` takes all files that it finds."""
    for file in (ROOT / "broker" / "store" / "migrations").glob("*.sql"):
        shutil.copy(file, code / "broker" / "store" / "migrations")


def run_tests_of(code: Path, *paths: str, servers: Mapping[str, str]) -> str:
    """Runs tests of a release with our packages, on servers of ours, and returns what failed."""
    # Our plugin is not there to be found.
    asked = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:pleo_token_broker", *paths]
    environment = {"PATH": os.defpath, "TMPDIR": tempfile.gettempdir(), **servers}
    ended = subprocess.run(
        asked, cwd=code, env=environment, capture_output=True, text=True, check=False
    )
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr
