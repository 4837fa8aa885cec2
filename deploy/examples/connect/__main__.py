"""Serves the example until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import grpc.aio
import uvicorn

from broker.client import SERVICE_CONFIG
from broker.v1.grant_service_pb2_grpc import GrantServiceStub

from .reconnects import Reconnects
from .site import Site, application

_URL: Final = "http://127.0.0.1:8400"
"""Among the redirect URIs of `make run`, with /callback after it."""


async def main() -> None:
    """Serves where the arguments say."""
    parser = argparse.ArgumentParser(prog="connect", description="Connect to Pleo, an example.")
    parser.add_argument("--broker", default=os.environ.get("BROKER_ADDRESS", "127.0.0.1:50051"))
    parser.add_argument("--url", default=_URL, help="as browsers see it; default %(default)s")
    chosen = parser.parse_args()
    listened = urlsplit(chosen.url)
    # Beyond this machine: grpc.aio.secure_channel, with a certificate that the policy knows.
    options = [("grpc.service_config", SERVICE_CONFIG)]
    async with grpc.aio.insecure_channel(chosen.broker, options) as channel:
        grants = GrantServiceStub(channel)
        site = Site(url=chosen.url, grants=grants, reconnects=Reconnects(grants=grants))
        print(f"Connect to Pleo: {chosen.url}/  (Ctrl-C ends it)", flush=True)  # noqa: T201
        config = uvicorn.Config(
            application(site),
            host=listened.hostname or "127.0.0.1",
            port=listened.port or 8400,
            # The address of the callback holds a code, which is for no log.
            access_log=False,
            log_level="warning",
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    # What uvicorn ends by, and says again when it has ended.
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
