"""OperationsService: explains and mends, for on-call. None of it is answered yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

from broker.rpc.caller import Context
from broker.rpc.edge import UnimplementedError
from broker.v1 import operations_service_pb2
from broker.v1.operations_service_pb2_grpc import OperationsServiceServicer


class OperationsService(OperationsServiceServicer):
    """Says of every call that it is not implemented."""

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
        """Not answered yet."""
        raise UnimplementedError

    def RewrapKeys(
        self, request: operations_service_pb2.RewrapKeysRequest, context: Context
    ) -> AsyncIterator[operations_service_pb2.RewrapKeysResponse]:
        """Not answered yet."""
        raise UnimplementedError
