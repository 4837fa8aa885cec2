"""News between replicas over Redis pub/sub (port `Announcements`). What is lost, the poll tells.

Every replica hears every announcement, its own too. A subscription that was interrupted is made
anew from nothing, and said to be: redis-py would subscribe again without a word, and what was
announced meanwhile would be missed in silence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.client import PubSub

from broker.domain.fields import check_tenant
from broker.lease.client import RedisClient
from broker.lease.failure import RedisUnreachable
from broker.ports import GrantMoved, Resubscribed

_NAME = "announcements"

_NEVER: Final = 2**63
"""Beyond PostgreSQL's largest bigint."""


class RedisAnnouncements:
    """Upholds `ports.Announcements`. The channel is `prefix` and `moved`.

    Redis 7 lets a user of an ACL use no channel unless told to: `&token-broker:*`, in a cluster
    `&{token-broker}:*`.
    """

    def __init__(self, client: RedisClient, *, prefix: str) -> None:
        self._client = client
        self._channel = f"{prefix}moved"

    async def announce(self, moved: GrantMoved) -> None:
        """See `ports.Announcements.announce`. Safe to cancel and to retry."""
        told = {"tenant": moved.tenant, "generation": moved.generation, "version": moved.version}
        message = json.dumps(told)
        with suppress(RedisUnreachable):  # the client has told; the others poll
            await self._client.ask(lambda redis: redis.publish(self._channel, message))

    async def listen(self) -> AsyncGenerator[GrantMoved | Resubscribed, None]:
        """See `ports.Announcements.listen`. Close it, or cancel its task, to give it up."""
        times = self._client.times
        pause = times.resubscribe_first
        while True:
            async with self._client.subscription() as pubsub:
                while (news := await self._hear(pubsub)) is not None:
                    pause = times.resubscribe_first
                    yield news
            await asyncio.sleep(pause.total_seconds())
            pause = min(2 * pause, times.resubscribe_most)

    async def _hear(self, pubsub: PubSub) -> GrantMoved | Resubscribed | None:
        """Waits for news, subscribed first; None: there are none from here any more."""
        try:
            if not pubsub.subscribed:
                await self._subscribe(pubsub)
            while True:
                news = self._read(await self._receive_or_ask(pubsub))
                if news is not None:
                    return news
        except RedisUnreachable:  # the observer knows
            return None

    async def _subscribe(self, pubsub: PubSub) -> None:
        times = self._client.times
        within = times.connect + times.answer
        await self._client.attempt(pubsub.subscribe(self._channel), within=within, what=_NAME)

    async def _receive_or_ask(self, pubsub: PubSub) -> dict[str, Any]:
        """Waits for a message, and after a silence for any sign of life.

        Raises:
            RedisUnreachable: the connection is dead, or as silent as if it were.
        """
        message = await self._receive(pubsub)
        if message is None:
            within = self._client.times.answer
            await self._client.attempt(pubsub.ping(), within=within, what=_NAME)
            message = await self._receive(pubsub)
        if message is None:
            self._client.report(_NAME, "silent")
            raise RedisUnreachable("silent")
        return message

    async def _receive(self, pubsub: PubSub) -> dict[str, Any] | None:
        times = self._client.times
        seconds = times.ping.total_seconds()
        received: dict[str, Any] | None = await self._client.attempt(
            pubsub.get_message(timeout=seconds),
            within=times.ping + times.connect + times.answer,
            what=_NAME,
        )
        return received

    def _read(self, message: dict[str, Any]) -> GrantMoved | Resubscribed | None:
        match message:
            case {"type": "subscribe"}:
                return Resubscribed()
            case {"type": "message", "data": bytes(announced)}:
                moved = read_moved(announced)
                if moved is None:
                    self._client.report(_NAME, "malformed message")
                return moved
            case _:
                return None


def read_moved(announced: bytes) -> GrantMoved | None:
    """Reads an announcement; None: it is none, and another program uses the channel."""
    try:
        told: object = json.loads(announced)
    except (ValueError, RecursionError):
        return None
    match told:
        # Whatever else is told is passed over: in a rolling update the newer half may tell more.
        case {"tenant": str(tenant), "generation": int(generation), **others} if check_tenant(
            tenant
        ) is None and _is_number(generation):
            version = others.get("version")
            known = version if isinstance(version, int) and _is_number(version) else 0
            return GrantMoved(tenant=tenant, generation=generation, version=known)
        case _:
            return None


def _is_number(value: int) -> bool:
    """Tells what PostgreSQL may have counted from what it never counts to; true is none."""
    return not isinstance(value, bool) and 0 <= value < _NEVER
