"""The commands that run something: `serve`, `dev`, `sandbox`.

Heavy imports are inside, so that the other commands start fast.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import Annotated

import typer

from broker.cli.configured import naming_its_file, read_settings
from broker.cli.declaring import environ_of
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import say


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    for name, command in {"serve": serve, "dev": dev, "sandbox": sandbox}.items():
        app.command(name, rich_help_panel="Running")(command)


def serve(context: typer.Context) -> None:
    """Serve, until SIGTERM or Ctrl-C; settings come from the environment."""
    from broker.config import ServeSettings  # noqa: PLC0415 - starts fast
    from broker.hardening import keep_memory_private  # noqa: PLC0415 - likewise
    from broker.ops.logs import open_log  # noqa: PLC0415 - likewise
    from broker.serving import serve as serve_broker  # noqa: PLC0415 - likewise

    # Before any secret is read.
    keep_memory_private()
    settings = read_settings(ServeSettings, environ_of(context))
    with open_log(sys.stderr, log_format=settings.log_format, level=settings.log_level) as log:
        try:
            _run(serve_broker(settings, log))
        except CommandFailed as error:
            told = naming_its_file(error.message, settings)
            raise CommandFailed(told, hint=error.hint, status=error.status) from None


def dev(
    context: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="End after the first token.")] = False,
) -> None:
    """Run everything on this machine, with a demo tenant: what `make run` does."""
    from broker.dev.run import run_demo  # noqa: PLC0415 - starts fast

    _run(run_demo(environ_of(context), is_once=once))


def sandbox(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(help="Where to listen; loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65_535)] = 8420,
) -> None:
    """Run the Pleo sandbox alone, a test instrument."""
    from broker.config.addresses import is_loopback  # noqa: PLC0415 - starts fast
    from broker.sandbox.server import serve as serve_sandbox  # noqa: PLC0415 - likewise

    environ_of(context)
    if not is_loopback(host):
        raise CommandFailed(
            "the sandbox answers everybody and is for this machine alone: give a loopback host",
            status=ExitStatus.WRONG_USE,
        )
    _run(serve_sandbox(host=host, port=port))


def _run(main: Coroutine[None, None, None]) -> None:
    """Runs a coroutine on uvloop where there is one; foreseen failures end as `CommandFailed`."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main)
    except Exception as error:
        foreseen = next(_foreseen(error), None)
        if foreseen is None:
            raise
        raise foreseen from None


def _foreseen(error: BaseException) -> Iterator[CommandFailed]:
    """Gives what is said of errors that tell all there is to say."""
    from broker.config import SecretUnreadableError, SettingsError  # noqa: PLC0415 - starts fast
    from broker.dev.failures import DEV_FAILURES  # noqa: PLC0415 - likewise
    from broker.lease.address import RedisUrlRefused  # noqa: PLC0415 - likewise
    from broker.rpc.reloading import FilesUnusableError  # noqa: PLC0415 - likewise
    from broker.store.home import MEND, HomeDiffersError  # noqa: PLC0415 - likewise
    from broker.store.sealing import KeysetUnreadableError  # noqa: PLC0415 - likewise

    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _foreseen(each)
    known = (OSError, SecretUnreadableError, SettingsError, RedisUrlRefused, HomeDiffersError)
    if isinstance(error, (*known, KeysetUnreadableError, FilesUnusableError, *DEV_FAILURES)):
        yield CommandFailed(str(error), hint=MEND if isinstance(error, HomeDiffersError) else "")


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - may not be there
    except ImportError:
        say("uvloop is not installed: the standard event loop serves")
        return None
    return uvloop.Loop
