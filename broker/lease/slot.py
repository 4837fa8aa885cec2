"""Where our slot of a Redis Cluster is, asked of its nodes anew for each connection that is opened.

Everything that the broker keeps in Redis has one hash tag, and so lies in one slot, on one node: it
is little, and one node is asked as any single Redis is. Where the slot goes, in a failover or when
slots are moved, the old node answers MOVED or is gone; the next connections are to the new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from broker.lease.several import Node

TAG: Final = "{token-broker}"
"""What all keys begin with in a Redis Cluster: the part in braces alone is hashed."""

_SLOT: Final = key_slot(TAG.encode())

# Whatever else an address says is about the connections that commands are sent on.
_SHARED: Final = (
    *("socket_connect_timeout", "socket_timeout", "retry", "credential_provider"),
    *("protocol", "client_name", "driver_info", "health_check_interval"),
)


class SlotOwner:
    """Upholds what redis-py's connections for Sentinel ask of their pool."""

    is_master = True
    check_connection = False  # the command that follows tells as well

    def __init__(self, nodes: Sequence[Node], options: Mapping[str, Any]) -> None:
        """`options`: those of the connections to the slot's node. Opens nothing."""
        ours = {name: options[name] for name in _SHARED if name in options}
        if options.get("connection_class") is SSLConnection:
            ours |= {name: each for name, each in options.items() if name.startswith("ssl_")}
            ours["ssl"] = True
        self._options = ours
        self._nodes = list(nodes)

    async def get_master_address(self) -> tuple[str, int]:
        """Asks one node after the other which has our slot.

        Raises:
            redis.ConnectionError: none says.
        """
        for host, port in tuple(self._nodes):
            is_found = False
            try:
                found = await self._ask(host, port)
                is_found = True
            except (RedisError, OSError, ValueError):
                continue  # not there, no cluster, or not whole
            finally:
                if not is_found:  # a cancellation as well: a silent node must not stay the first
                    self._nodes.append(self._nodes.pop(0))
            return found
        raise RedisConnectionError("no node of the cluster says where our slot is")

    async def _ask(self, host: str, port: int) -> tuple[str, int]:
        async with Redis(host=host, port=port, **self._options) as node:
            execute: Callable[..., Awaitable[object]] = node.execute_command  # it gives no type
            told = await execute("CLUSTER SLOTS")
        return owner_of_slot(told, asked=host)

    async def aclose(self) -> None:
        """Closes nothing: no connection to a node outlives its question."""


def owner_of_slot(told: object, *, asked: str) -> tuple[str, int]:
    """Reads where our slot is from an answer to `CLUSTER SLOTS`; `asked`: the node that gave it.

    Raises:
        ValueError: it does not say.
    """
    for first, last, (host, port, *_), *_ in cast("list[list[Any]]", told):
        if first <= _SLOT <= last:
            name = host.decode() if host else asked  # a node that does not know its own address
            if name == "?":
                break
            return name, int(port)
    raise ValueError("nobody has the slot")
