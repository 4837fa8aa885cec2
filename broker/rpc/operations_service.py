"""OperationsService: explains and mends, for on-call."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from broker.rpc.caller import CallerOf, Context, caller_of
from broker.rpc.explaining import explanation_message
from broker.rpc.fleet_messages import fleet_message
from broker.rpc.messages import grant_message
from broker.rpc.ports import Explains, FleetGuard, FleetReports, Keys, Rotations
from broker.rpc.token_service import budget_of
from broker.rpc.validation import (
    read_explain_grant,
    read_refresh_grant,
    read_release_guard,
    read_rewrap_keys,
)
from broker.service.rewrapping import RewrapProgress
from broker.v1 import operations_service_pb2
from broker.v1.operations_service_pb2_grpc import OperationsServiceServicer


class OperationsService(OperationsServiceServicer):
    """Translates; what an act leads to is decided behind the ports."""

    def __init__(
        self,
        guard: FleetGuard,
        *,
        explains: Explains,
        rotations: Rotations,
        reports: FleetReports,
        keys: Keys,
        caller_of: CallerOf = caller_of,
    ) -> None:
        self._guard = guard
        self._explains = explains
        self._rotations = rotations
        self._reports = reports
        self._keys = keys
        self._caller_of = caller_of

    async def RefreshGrant(
        self, request: operations_service_pb2.RefreshGrantRequest, context: Context
    ) -> operations_service_pb2.RefreshGrantResponse:
        """Rotates a grant's tokens, due or not, in the caller's name."""
        asked = read_refresh_grant(request, caller=self._caller_of(context))
        grant = await self._rotations.refresh_grant(asked, budget=budget_of(context))
        return operations_service_pb2.RefreshGrantResponse(grant=grant_message(grant))

    async def ExplainGrant(
        self, request: operations_service_pb2.ExplainGrantRequest, context: Context
    ) -> operations_service_pb2.ExplainGrantResponse:
        """Tells all that is known about a grant."""
        tenant, limit = read_explain_grant(request)
        explained = await self._explains.explain_grant(
            tenant, limit=limit, troubles=self._reports.troubles()
        )
        return explanation_message(explained, limit=limit)

    async def GetFleetStatus(
        self, request: operations_service_pb2.GetFleetStatusRequest, context: Context
    ) -> operations_service_pb2.GetFleetStatusResponse:
        """Tells how the fleet is, as far as that can be found out in a moment."""
        return fleet_message(await self._reports.fleet_report())

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

    async def RewrapKeys(
        self, request: operations_service_pb2.RewrapKeysRequest, context: Context
    ) -> AsyncGenerator[operations_service_pb2.RewrapKeysResponse, None]:
        """Seals every row anew, for as long as the caller listens; or only counts."""
        reason = read_rewrap_keys(request)
        if request.validate_only:
            yield rewrap_message(await self._keys.count_keys())
            return
        progress = self._keys.rewrap_keys(by=self._caller_of(context), reason=reason)
        async with aclosing(progress) as told:
            async for each in told:
                yield rewrap_message(each)


def rewrap_message(progress: RewrapProgress) -> operations_service_pb2.RewrapKeysResponse:
    """Returns how far a rewrapping is."""
    return operations_service_pb2.RewrapKeysResponse(
        key_id=progress.key_id,
        total_count=progress.total,
        rewrapped_count=progress.rewrapped,
        unreadable_count=progress.unreadable,
    )
