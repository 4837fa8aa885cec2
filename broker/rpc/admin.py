"""The admin socket: what on-call needs from inside the pod, without certificate or token.

Who may open the socket is the file system's word: its mode is 0600, so only the broker's own user
and root can. What may be called there is little: OperationsService, and looking at grants. No
tokens are handed out.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

import grpc.aio

from broker.domain.policy import EVERYBODY, Policy, Rule
from broker.ports import Observer
from broker.rpc.caller import Context
from broker.rpc.edge import Edge
from broker.rpc.gate import PolicyGate
from broker.rpc.methods import matching
from broker.rpc.observing import CallObserver, CallTracer
from broker.rpc.server import AddressUnavailableError, Servicers, add_servicers

_ONLY_OURS: Final = stat.S_IRUSR | stat.S_IWUSR
_ANYBODY: Final = 0o777

GRACE: Final = timedelta(seconds=2)
"""How long calls may go on in a drain: those of the command line, which a person can repeat."""

_KNOCK_SECONDS: Final = 1.0
"""Within one machine a connection is there at once; only a queue that is full makes it wait."""


def admin_edge(
    *, observer: Observer, calls: CallObserver, tracer: CallTracer | None = None
) -> Edge:
    """Returns an edge that lets in whoever could open the socket, for what is meant for it."""
    identity = f"admin:{os.getuid()}"
    looking = frozenset({"GrantService/GetGrant", "GrantService/ListGrants"})
    rule = Rule(
        identity=identity, rpcs=matching("OperationsService/*") | looking, tenants=EVERYBODY
    )
    policy = Policy(rules=(rule,))

    async def identify(_: Context) -> str:
        return identity

    gate = PolicyGate(identify=identify, policy=lambda: policy)
    return Edge(observer=observer, calls=calls, gate=gate, tracer=tracer)


@asynccontextmanager
async def admin_socket(
    path: Path | None, servicers: Servicers, *, edge: Edge
) -> AsyncIterator[None]:
    """Serves on a Unix socket as long as the context lasts, and takes it away afterwards.

    `path` None: there is none.

    Raises:
        AddressUnavailableError: somebody else listens there, or no socket can be made.
    """
    if path is None:
        yield
        return
    _make_way(path)
    server = grpc.aio.server()
    add_servicers(server, servicers, edge=edge)
    try:
        # gRPC makes the socket in here, and nobody else may find it open even for a moment.
        with _files_for_us_alone():
            server.add_insecure_port(f"unix:{path}")
    except (RuntimeError, OSError) as error:
        raise _unavailable(path, "no socket can be made there") from error
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE.total_seconds())
        _remove(path)


def _make_way(path: Path) -> None:
    """Takes away a socket that a crash left behind, and nothing else.

    gRPC would take away one that is in use as well, and leave its owner listening for nobody.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return  # there is nothing in the way; whether a socket can be made shows when it is
    if not is_socket:
        raise _unavailable(path, "something else than a socket is there")
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(_KNOCK_SECONDS)
        try:
            knocking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _unavailable(path, error.strerror or "it cannot be opened") from error
    raise _unavailable(path, "somebody listens there")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)  # gRPC may have done it


@contextmanager
def _files_for_us_alone() -> Iterator[None]:
    before = os.umask(_ANYBODY & ~_ONLY_OURS)
    try:
        yield
    finally:
        os.umask(before)


def _unavailable(path: Path, why: str) -> AddressUnavailableError:
    return AddressUnavailableError(f"cannot listen on {path} (BROKER_ADMIN_SOCKET): {why}")
