"""The way to the fake Pleo and back: a request goes on there when its client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.sandbox.conduct import Ending, Visit, conduct
from broker.sandbox.faults import Step
from broker.sandbox.oauth import Answer
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.wire import Wire


def _unanswered() -> asyncio.Future[Ending]:
    return asyncio.get_running_loop().create_future()


def _connection() -> Wire:
    """Makes a connection to nowhere: only who watches it matters."""
    return Wire(asyncio.Transport())


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeRequest:
    """A request at the server: what it meets, what it does, who waits."""

    steps: tuple[Step, ...]
    company: str | None
    act: Callable[[], Answer]
    answered: asyncio.Future[Ending] = field(default_factory=_unanswered)
    connection: Wire = field(default_factory=_connection)


class FakeWire:
    """Carries requests to the server of a sandbox that is served nowhere."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begins."""
        await self._group.__aenter__()

    async def close(self) -> None:
        """Ends, and whatever is under way with it."""
        self._sandbox.room.close()
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    async def answer(self, request: FakeRequest, *, until: float) -> Ending | None:
        """Waits for the server's answer; None: it did not come in time."""
        task = self._group.create_task(self._serve(request), name="a request at the fake Pleo")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(request.answered)
        except TimeoutError:
            return None
        finally:
            if not request.answered.done():
                request.connection.lost()

    async def _serve(self, request: FakeRequest) -> None:
        company, server = request.company, self._sandbox.server

        def revoke() -> None:
            if company is not None:
                server.disconnect(company=company)

        visit = Visit(
            wire=request.connection,
            company=company,
            steps=request.steps,
            act=request.act,
            revoke=revoke,
        )
        try:
            request.answered.set_result(await conduct(visit, room=self._sandbox.room))
        finally:
            request.answered.cancel()
