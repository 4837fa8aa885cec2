"""OperationsService: explains and mends, for on-call."""

from __future__ import annotations

from collections.abc import AsyncIterator

from broker.rpc.caller import CallerOf, Context, caller_of
from broker.rpc.edge import UnimplementedError
from broker.rpc.explaining import explanation_message
from broker.rpc.ports import Operations
from broker.rpc.validation import read_explain_grant, read_release_guard
from broker.v1 import operations_service_pb2
from broker.v1.operations_service_pb2_grpc import OperationsServiceServicer


class OperationsService(OperationsServiceServicer):
    """Translates; what a decision leads to is decided behind `Operations`."""

    def __init__(self, operations: Operations, *, caller_of: CallerOf = caller_of) -> None:
        self._operations = operations
        self._caller_of = caller_of

    async def RefreshGrant(
        self, request: operations_service_pb2.RefreshGrantRequest, context: Context
    ) -> operations_service_pb2.RefreshGrantResponse:
        """Not answered yet."""
        raise UnimplementedError

    async def ExplainGrant(
        self, request: operations_service_pb2.ExplainGrantRequest, context: Context
    ) -> operations_service_pb2.ExplainGrantResponse:
        """Tells all that is known about a grant."""
        tenant, limit = read_explain_grant(request)
        explained = await self._operations.explain_grant(tenant, limit=limit)
        return explanation_message(explained, limit=limit)

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
        outcome = await self._operations.release_guard(release, by=by, reason=reason)
        return operations_service_pb2.ReleaseGuardResponse(
            released_count=outcome.released, remaining_count=outcome.remaining
        )

    def RewrapKeys(
        self, request: operations_service_pb2.RewrapKeysRequest, context: Context
    ) -> AsyncIterator[operations_service_pb2.RewrapKeysResponse]:
        """Not answered yet."""
        raise UnimplementedError
