"""The entry to the command line: which commands there are, and how each of them ends.

Exit status: 0 done, 1 failed, 2 wrong use, 3 REAUTH_REQUIRED, 130 interrupted. No traceback,
whatever happens. Typer ends a command quietly on Ctrl-C, and when the reader of stdout has seen
enough (`| head`): what is printed must be flushed while the command runs, as `typer.echo` does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Final

import typer
from typer.main import get_command

from broker import __version__
from broker.cli import fleet, guard, installation, keys, running, tenants
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import say

REGISTRARS: Final[tuple[Callable[[typer.Typer], None], ...]] = (
    running.register,
    installation.register,
    keys.register,
    tenants.register,
    fleet.register,
    guard.register,
)
"""Each adds its commands, which `--help` lists in this order."""

_TOO_MANY: Final = "Got unexpected extra argument"


def build_app() -> typer.Typer:
    """Returns the application with all its commands."""
    app = typer.Typer(
        help="Holds Pleo OAuth refresh tokens, and hands out access tokens over gRPC.",
        no_args_is_help=True,
        add_completion=False,
        # A traceback of its own, with the values of variables in it, is none for this program.
        pretty_exceptions_enable=False,
    )
    app.callback()(_common)
    for register in REGISTRARS:
        register(app)
    return app


def run(arguments: Sequence[str], *, environ: Mapping[str, str]) -> int:
    """Runs one command; returns its exit status."""
    command = get_command(build_app())
    try:
        ended = command.main(
            list(arguments), prog_name="token-broker", standalone_mode=False, obj=environ
        )
    except KeyboardInterrupt:  # where typer does not see it: while it reads the arguments
        return ExitStatus.INTERRUPTED
    # Broad, because this is the end: what nobody expected is a defect, and is told as one.
    except Exception as error:  # noqa: BLE001 - see above
        line, status = _ending(error)
        if line:
            with suppress(OSError):  # a full disk below stderr too: there is nobody left to tell
                say(line)
        return status
    # An exit that a command asked for is returned here as its number.
    return ended if isinstance(ended, int) else ExitStatus.DONE


def _ending(error: Exception) -> tuple[str, int]:
    match error:
        case CommandFailed():
            return str(error), error.status
        case typer.TyperException():
            return _wrong_use(error), error.exit_code
        case typer.Abort():
            return "error: aborted", ExitStatus.FAILED
        case OSError(strerror=str(why)):  # a full disk below stdout
            return f"error: {why}", ExitStatus.FAILED
        case _:
            return _defect(error), ExitStatus.FAILED


def _print_version(*, is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(__version__)
        raise typer.Exit


def _common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """What stands before any command."""


def _wrong_use(error: typer.TyperException) -> str:
    message = error.format_message().replace("Value error, ", "")  # pydantic's
    if not message:  # nothing was asked for, and the help is printed already
        return ""
    if message.startswith(_TOO_MANY):
        # Not what it was: somebody may have given a token where none is taken.
        message = "Got more arguments than the command takes."
    return f"error: {message}\nhint: token-broker --help, token-broker COMMAND --help"


def _defect(error: Exception) -> str:
    """Says what and where; the error's own words may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"error: unexpected {type(error).__name__} at {where}\nhint: a defect: report it"
