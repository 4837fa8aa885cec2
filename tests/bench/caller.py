"""Calls one unary method again and again: `python -m bench.caller`, and the load of `make bench`.

A process of its own, so that what it costs is not counted as the server's. Knows no messages: the
request is given in hex, and what is answered is not looked at.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TypeAlias

import grpc
import grpc.aio

Unary: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"
"""A method whose messages are left as they travel."""


async def call(arguments: argparse.Namespace) -> None:
    """Makes `count` calls, `at_once` under way; raises at the first that fails."""
    request = bytes.fromhex(arguments.request)
    async with channel_to(arguments.port, arguments.certificates) as channel:
        method: Unary = channel.unary_unary(arguments.method)

        async def some() -> None:
            for _ in range(arguments.count // arguments.at_once):
                await method(request)

        async with asyncio.TaskGroup() as callers:
            for number in range(arguments.at_once):
                callers.create_task(some(), name=f"caller {number}")


def channel_to(port: int, folder: Path | None) -> grpc.aio.Channel:
    """Returns a connection; `folder`: with the certificates, None: clear text."""
    if folder is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    read = [folder / name for name in ("ca.crt", "caller.key", "caller.crt")]
    authority, key, certificate = (each.read_bytes() for each in read)
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(f"localhost:{port}", credentials)


def main() -> None:
    """Calls as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.caller", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("method")
    parser.add_argument("request")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--certificates", type=Path)
    asyncio.run(call(parser.parse_args()))


if __name__ == "__main__":
    main()
