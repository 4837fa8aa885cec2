"""GrantService: makes, shows and ends grants."""

from __future__ import annotations

from broker.rpc.caller import CallerOf, Context, caller_of, current_caller
from broker.rpc.messages import grant_message, started_message
from broker.rpc.paging import page_token
from broker.rpc.ports import Consents, Grants
from broker.rpc.token_service import deadline_of
from broker.rpc.validation import (
    read_complete_authorization,
    read_import_grant,
    read_list_grants,
    read_revoke_grant,
    read_start_authorization,
    read_tenant,
)
from broker.v1 import grant_service_pb2
from broker.v1.grant_service_pb2_grpc import GrantServiceServicer


class GrantService(GrantServiceServicer):
    """Translates; what may happen to a grant is decided behind `Consents` and `Grants`."""

    def __init__(
        self, *, consents: Consents, grants: Grants, caller_of: CallerOf = caller_of
    ) -> None:
        self._consents = consents
        self._grants = grants
        self._caller_of = caller_of

    async def StartAuthorization(
        self, request: grant_service_pb2.StartAuthorizationRequest, context: Context
    ) -> grant_service_pb2.StartAuthorizationResponse:
        """Begins a consent."""
        asked = read_start_authorization(request, caller=self._caller_of(context))
        return started_message(await self._consents.start_authorization(asked))

    async def CompleteAuthorization(
        self, request: grant_service_pb2.CompleteAuthorizationRequest, context: Context
    ) -> grant_service_pb2.CompleteAuthorizationResponse:
        """Completes a consent."""
        asked = read_complete_authorization(request, caller=self._caller_of(context))
        budget = deadline_of(context)
        grant = await self._consents.complete_authorization(asked, budget=budget)
        return grant_service_pb2.CompleteAuthorizationResponse(grant=grant_message(grant))

    async def ImportGrant(
        self, request: grant_service_pb2.ImportGrantRequest, context: Context
    ) -> grant_service_pb2.ImportGrantResponse:
        """Takes over a refresh token."""
        asked = read_import_grant(request, caller=self._caller_of(context))
        grant = await self._consents.import_grant(asked, budget=deadline_of(context))
        return grant_service_pb2.ImportGrantResponse(grant=grant_message(grant))

    async def GetGrant(
        self, request: grant_service_pb2.GetGrantRequest, context: Context
    ) -> grant_service_pb2.GetGrantResponse:
        """Shows a grant, also a revoked one."""
        grant = await self._grants.get_grant(read_tenant(request.tenant))
        return grant_service_pb2.GetGrantResponse(grant=grant_message(grant))

    async def ListGrants(
        self, request: grant_service_pb2.ListGrantsRequest, context: Context
    ) -> grant_service_pb2.ListGrantsResponse:
        """Shows a page of grants; after a full one there may be another, or an empty one."""
        query = read_list_grants(request, tenants=current_caller().permission.tenants)
        grants = await self._grants.list_grants(query)
        is_full = len(grants) >= query.limit
        return grant_service_pb2.ListGrantsResponse(
            grants=[grant_message(grant) for grant in grants],
            next_page_token=page_token(query, last_tenant=grants[-1].tenant) if is_full else "",
        )

    async def RevokeGrant(
        self, request: grant_service_pb2.RevokeGrantRequest, context: Context
    ) -> grant_service_pb2.RevokeGrantResponse:
        """Ends a grant."""
        asked = read_revoke_grant(request, caller=self._caller_of(context))
        grant = await self._grants.revoke_grant(asked)
        return grant_service_pb2.RevokeGrantResponse(grant=grant_message(grant))
