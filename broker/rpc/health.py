"""The standard health service (`grpc.health.v1`), told from outside what serves.

Our own rather than grpcio-health-checking's servicer, whose messages are used: telling that one is
a coroutine that waits for its slowest watcher, and its watchers outlive a drain, so that
`server.stop` waits for them until its grace is over. Here telling is a plain call, and a drain ends
the streams after their last word. Not before: channels watch anew at once where a stream ends.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from broker.rpc.caller import Context

SERVICES: Final = (
    "",
    "broker.v1.TokenService",
    "broker.v1.GrantService",
    "broker.v1.OperationsService",
)
"""What serves as this replica does; `""` is the server as a whole."""

DEPENDENCIES: Final = ("postgres", "redis", "pleo")
"""What this replica stands on. A dependency that is away takes no service away by itself."""


class HealthService(HealthServicer):
    """Answers from a table. All of it is for the event loop's thread."""

    def __init__(self) -> None:
        """Nothing serves until it is told."""
        self._serving = dict.fromkeys((*SERVICES, *DEPENDENCIES), False)
        self._changed = asyncio.Event()
        self._is_leaving = False
        self._is_drained = False
        self._watchers = 0

    @property
    def is_watched(self) -> bool:
        """Whether anybody is told as it changes."""
        return self._watchers > 0

    def set(self, service: str, *, serving: bool) -> None:
        """Takes note; once we leave it is late, and changes nothing.

        Raises:
            KeyError: there is no such service.
        """
        if self._serving[service] != serving and not self._is_leaving:
            self._serving[service] = serving
            self._wake_watchers()

    def leave(self) -> None:
        """Says NOT_SERVING of everything from now on."""
        self._serving = dict.fromkeys(self._serving, False)
        self._is_leaving = True
        self._wake_watchers()

    def drain(self) -> None:
        """Leaves, and ends what is watched."""
        self._is_drained = True
        self.leave()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """Answers how a service is now; an unknown one is NOT_FOUND."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """Tells how a service is, and again at each change; what was brief may be left out.

        An unknown service is no error here (gRPC's health protocol); it stays unknown.
        """
        self._watchers += 1
        try:
            await self._tell(request.service, context)
        finally:
            self._watchers -= 1

    async def _tell(self, service: str, context: Context) -> None:
        told: int | None = None
        while True:
            # Taken before the status is read: what changes in between wakes us at once.
            changed = self._changed
            status = self._status(service)
            if status != told:
                await context.write(HealthCheckResponse(status=status))
                told = status
            elif self._is_drained:
                return
            else:
                await changed.wait()

    def _status(self, service: str) -> int:
        serving = self._serving.get(service)
        if serving is None:
            return HealthCheckResponse.SERVICE_UNKNOWN
        return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING

    def _wake_watchers(self) -> None:
        """Wakes all who wait, and has those who come next wait for the next change."""
        self._changed.set()
        self._changed = asyncio.Event()
