"""Where the master is, asked of Sentinels anew for each connection that is opened.

A failover costs one pause: connections to the old master break, or answer READONLY and are closed
by redis-py, and the next ones are to the new master.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from redis.asyncio import SSLConnection
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from broker.lease.several import Sentinels

# Whatever else an address says is about the servers, not about the Sentinels.
_SHARED: Final = (
    *("socket_connect_timeout", "socket_timeout", "retry"),
    *("protocol", "client_name", "driver_info", "health_check_interval"),
)


class Master:
    """Upholds what redis-py's connections for Sentinel ask of their pool."""

    is_master = True
    check_connection = False  # the command that follows tells as well

    def __init__(self, sentinels: Sentinels, options: Mapping[str, Any]) -> None:
        """`options`: those of the connections to the servers. Opens nothing."""
        ours = {name: options[name] for name in _SHARED if name in options}
        if options.get("connection_class") is SSLConnection:
            ours |= {name: each for name, each in options.items() if name.startswith("ssl_")}
            ours["ssl"] = True
        self._service = sentinels.service
        untyped: Callable[..., Sentinel] = Sentinel  # redis-py gives it no type
        self._strangers = untyped(sentinels.nodes, sentinel_kwargs=ours)
        provider = options.get("credential_provider")
        self._known = (
            untyped(sentinels.nodes, sentinel_kwargs=ours | {"credential_provider": provider})
            if provider
            else None
        )

    async def get_master_address(self) -> tuple[str, int]:
        """Asks one Sentinel after the other, and shows a password only where nobody said without.

        Raises:
            MasterNotFoundError: none knows a master that lives.
        """
        host, port = await self._discover()
        return str(host), int(port)

    async def _discover(self) -> tuple[str, int]:
        is_found = False
        try:
            found: tuple[str, int] = await self._ask(self._strangers)
            is_found = True
        except MasterNotFoundError:
            if self._known is None:
                raise
            found = await self._ask(self._known)
            is_found = True
        finally:
            if not is_found:  # a cancellation as well: silent Sentinels must not be first for ever
                self._begin_elsewhere()
        return found

    async def _ask(self, sentinel: Sentinel) -> tuple[str, int]:
        found: tuple[str, int] = await sentinel.discover_master(self._service)
        return found

    def _begin_elsewhere(self) -> None:
        for each in filter(None, [self._strangers, self._known]):
            each.sentinels.append(each.sentinels.pop(0))

    async def aclose(self) -> None:
        """Closes the connections to the Sentinels."""
        for each in filter(None, [self._strangers, self._known]):
            with suppress(Exception):  # a peer that is gone says no good-bye
                await each.aclose()
