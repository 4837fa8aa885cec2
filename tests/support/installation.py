"""The settings of an installation on real servers, and what becomes of its database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import asyncpg

from broker.config import ServeSettings
from broker.sandbox.sandbox import Sandbox
from broker.store.home import settle_home
from broker.store.pool import open_pool
from broker.store.sealing import Keyring, generate_keyset
from broker.wiring import home, pool_settings
from support.service_role import as_service

CLIENT_SECRET = "correct-horse-battery"


def settings_of_an_installation(
    database_url: str, redis_url: str, *, sandbox: Sandbox, folder: Path
) -> dict[str, str]:
    """Returns those of one that is well, and whose keyset is new."""
    keyset = folder / "keyset.json"
    keyset.write_text(generate_keyset())
    return {
        "BROKER_HOME": "here",
        "BROKER_DATABASE_URL": as_service(database_url),
        "BROKER_REDIS_URL": redis_url,
        "BROKER_KEYSET_FILE": str(keyset),
        "BROKER_PLEO_ENVIRONMENT": "custom",
        "BROKER_PLEO_AUTHORIZE_URL": sandbox.authorize_url,
        "BROKER_PLEO_TOKEN_URL": sandbox.token_url,
        "BROKER_PLEO_API_URL": sandbox.url,
        "BROKER_PLEO_CLIENT_ID": "client-1",
        "BROKER_PLEO_CLIENT_SECRET": CLIENT_SECRET,
        "BROKER_PLEO_REDIRECT_URIS": "http://localhost:8400/callback",
    }


async def settle(environ: Mapping[str, str]) -> None:
    """Does what the first start does."""
    settings = ServeSettings.from_environ(environ)
    async with open_pool(pool_settings(settings)) as pool:
        await settle_home(pool, Keyring.from_file(settings.keyset_file), home(settings))


async def execute(environ: Mapping[str, str], statement: str) -> Sequence[asyncpg.Record]:
    """Runs a statement as the broker's role."""
    settings = ServeSettings.from_environ(environ)
    async with open_pool(pool_settings(settings)) as pool:
        return await pool.fetch(statement)
