"""All that a broker needs, on this machine: PostgreSQL, Valkey, a Pleo sandbox, a keyset.

What `make run` stands on. Nothing outside the run's directory is touched, and all of it is gone
when the context ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.config import Address, ServeSettings
from broker.dev.rundir import run_directory
from broker.dev.servers import database_address, redis_address
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import DEMO_CLIENT
from broker.store.migrate import migrate
from broker.store.sealing import generate_keyset

SCOPES: Final = "export-items:read"
"""What the demo's call to the sandbox's API needs."""

_PASSED_ON: Final = frozenset(
    {"BROKER_GRPC_ADDRESS", "BROKER_OPS_ADDRESS", "BROKER_LOG_FORMAT", "BROKER_LOG_LEVEL"}
)
"""What a developer may change about the demo's broker. The rest of it is the stack's own."""

_LISTENERS: Final = {"BROKER_GRPC_ADDRESS": 50051, "BROKER_OPS_ADDRESS": 8080}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What runs, and how a broker finds it."""

    sandbox: Sandbox
    environ: Mapping[str, str]
    """The settings of a broker on this stack, as variables."""

    @property
    def settings(self) -> ServeSettings:
        """The same, read."""
        return ServeSettings.from_environ(self.environ)


@asynccontextmanager
async def dev_stack(
    environ: Mapping[str, str], *, on_step: Callable[[str], None]
) -> AsyncIterator[Stack]:
    """Starts everything but the broker; `on_step` is told what is up.

    Raises:
        WheelMissingError, NoAccountError, NoRunDirectoryError, ServerStartError: it cannot be
        started here; the message says why.
    """
    with run_directory() as run:
        async with (
            database_address(run, environ) as database_url,
            redis_address(run, environ) as redis_url,
            sandbox_server() as sandbox,
        ):
            on_step("PostgreSQL, Valkey and the Pleo sandbox run")
            await migrate(database_url)
            on_step("the schema is up to date")
            keyset = _write_keyset(run.path)
            yield Stack(
                sandbox=sandbox,
                environ=_settings(
                    environ,
                    sandbox,
                    BROKER_DATABASE_URL=database_url,
                    BROKER_REDIS_URL=redis_url,
                    BROKER_KEYSET_FILE=str(keyset),
                ),
            )


def _write_keyset(directory: Path) -> Path:
    path = directory / "keyset.json"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(generate_keyset())
    return path


def _settings(environ: Mapping[str, str], sandbox: Sandbox, **found: str) -> dict[str, str]:
    chosen = {name: value for name, value in environ.items() if name in _PASSED_ON and value}
    listeners = {name: _address(port) for name, port in _LISTENERS.items() if name not in chosen}
    return {
        "BROKER_HOME": "demo",
        "BROKER_LOG_FORMAT": "console",
        "BROKER_LOG_LEVEL": "warning",
        "BROKER_PLEO_ENVIRONMENT": "custom",
        "BROKER_PLEO_AUTHORIZE_URL": sandbox.authorize_url,
        "BROKER_PLEO_TOKEN_URL": sandbox.token_url,
        "BROKER_PLEO_API_URL": sandbox.url,
        "BROKER_PLEO_CLIENT_ID": DEMO_CLIENT.client_id,
        "BROKER_PLEO_CLIENT_SECRET": DEMO_CLIENT.client_secret,
        "BROKER_PLEO_REDIRECT_URIS": " ".join(DEMO_CLIENT.redirect_uris),
        "BROKER_PLEO_SCOPES": SCOPES,
        **listeners,
        **chosen,
        **found,
    }


def _address(port: int) -> str:
    """Returns the usual address, or any free one where another run has that already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            port = 0
    return str(Address(host="127.0.0.1", port=port))
