"""The settings of a command: every problem at once, by name, and never a value (law 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import say
from broker.config import Settings, SettingsError, unknown_names

S = TypeVar("S", bound=Settings)

_GIVE_FILES: Final = ("_FILE", "_JWKS")


def read_settings(model: type[S], environ: Mapping[str, str]) -> S:
    """Reads the settings of a command, and warns of names that are none.

    Raises:
        CommandFailed: wrong use; tells everything that is wrong.
    """
    for unknown in unknown_names(environ):
        say(f"warning: {unknown}")
    try:
        return model.from_environ(environ)
    except SettingsError as error:
        raise CommandFailed(
            "\n  ".join(["the settings do not do:", *map(str, error.problems)]),
            hint="broker/SETTINGS.md lists them all; token-broker doctor checks them",
            status=ExitStatus.WRONG_USE,
        ) from None


def naming_its_file(told: str, settings: Settings) -> str:
    """Puts before what is told of a file the variable that gave its path; others stay as they are.

    Whoever reads it changes the variable, and may never have seen the path.
    """
    given = [
        (path, name)
        for name, path in settings.redacted().items()
        if name.endswith(_GIVE_FILES) and path and path in told and name not in told
    ]
    # Of two, the longer one is meant: it begins as the other.
    return f"{max(given, key=lambda each: len(each[0]))[1]}: {told}" if given else told
