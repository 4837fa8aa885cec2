"""TokenService: hands out access tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

from broker.rpc.caller import Context, current_caller
from broker.rpc.edge import UnimplementedError, seconds_remaining
from broker.rpc.messages import token_message
from broker.rpc.ports import Tokens
from broker.rpc.validation import read_get_access_token
from broker.service.messages import ServedToken
from broker.v1 import token_service_pb2
from broker.v1.token_service_pb2_grpc import TokenServiceServicer

NO_DEADLINE: Final = timedelta(seconds=30)
"""For a caller without a deadline; the contract with callers."""


class TokenService(TokenServiceServicer):
    """Translates; what a token is and whether to renew it is decided behind `Tokens`."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def GetAccessToken(
        self, request: token_service_pb2.GetAccessTokenRequest, context: Context
    ) -> token_service_pb2.GetAccessTokenResponse:
        """Answers with a living access token."""
        tenant, rejected_generation = read_get_access_token(request)
        served = await self._tokens.get_access_token(
            tenant, rejected_generation=rejected_generation, budget=budget_of(context)
        )
        return self._hand_out(tenant, served)

    async def BatchGetAccessTokens(
        self, request: token_service_pb2.BatchGetAccessTokensRequest, context: Context
    ) -> token_service_pb2.BatchGetAccessTokensResponse:
        """Not answered yet."""
        raise UnimplementedError

    def WatchAccessTokens(
        self,
        request_iterator: AsyncIterator[token_service_pb2.WatchAccessTokensRequest],
        context: Context,
    ) -> AsyncIterator[token_service_pb2.WatchAccessTokensResponse]:
        """Not answered yet."""
        raise UnimplementedError

    def _hand_out(
        self, tenant: str, served: ServedToken
    ) -> token_service_pb2.GetAccessTokenResponse:
        """Turns a token into what a caller gets: the one way out, so that each is on record.

        Raises:
            ScopeMissing: then it is not given out.
        """
        caller = current_caller()
        caller.check_scopes(tenant, served.scopes)
        self._tokens.note_handed_out(tenant, caller=caller.identity, generation=served.generation)
        return token_message(served)


def budget_of(context: Context) -> timedelta:
    """Returns the time until the caller's deadline; never negative."""
    remaining = seconds_remaining(context)
    return NO_DEADLINE if remaining is None else timedelta(seconds=remaining)
