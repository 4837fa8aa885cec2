"""OperationsService: explains and mends, for on-call. Only the guard is answered yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

from broker.rpc.caller import CallerOf, Context, caller_of
from broker.rpc.edge import UnimplementedError
from broker.rpc.ports import FleetGuard
from broker.rpc.validation import read_release_guard
from broker.v1 import operations_service_pb2
from broker.v1.operations_service_pb2_grpc import OperationsServiceServicer


class OperationsService(OperationsServiceServicer):
    """Translates; what a decision leads to is decided behind `FleetGuard`."""

    def __init__(self, guard: FleetGuard, *, caller_of: CallerOf = caller_of) -> None:
        self._guard = guard
        self._caller_of = caller_of

    async def RefreshGrant(
        self, request: operations_service_pb2.RefreshGrantRequest, context: Context
    ) -> operations_service_pb2.RefreshGrantResponse:
        """Not answered yet."""
        raise UnimplementedError

    async def ExplainGrant(
        self, request: operations_service_pb2.ExplainGrantRequest, context: Context
    ) -> operations_service_pb2.ExplainGrantResponse:
        """Not answered yet."""
        raise UnimplementedError

    async def GetFleetStatus(
        self, request: operations_service_pb2.GetFleetStatusRequest, context: Context
    ) -> operations_service_pb2.GetFleetStatusResponse:
        """Not answered yet."""
        raise UnimplementedError

    async def ReleaseGuard(
        self, request: operations_service_pb2.ReleaseGuardRequest, context: Context
    ) -> operations_service_pb2.ReleaseGuardResponse:
        """Ends the fleet guard's hold, in the caller's name."""
        release, reason = read_release_guard(request)
        by = self._caller_of(context)
        outcome = await self._guard.release_guard(release, by=by, reason=reason)
        return operations_service_pb2.ReleaseGuardResponse(
            released_count=outcome.released, remaining_count=outcome.remaining
        )

    def RewrapKeys(
        self, request: operations_service_pb2.RewrapKeysRequest, context: Context
    ) -> AsyncIterator[operations_service_pb2.RewrapKeysResponse]:
        """Not answered yet."""
        raise UnimplementedError
