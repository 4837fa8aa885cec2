"""The settings of a command: every problem at once, by name, and never a value (law 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import say
from broker.config import Settings, SettingsError, unknown_names

S = TypeVar("S", bound=Settings)


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
