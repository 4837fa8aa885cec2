"""TokenService: hands out access tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from broker.domain.errors import BrokerError
from broker.rpc.caller import Caller, Context, current_caller, seconds_remaining
from broker.rpc.messages import token_message
from broker.rpc.ports import Tokens, Watches
from broker.rpc.status import status_of
from broker.rpc.validation import read_batch, read_get_access_token
from broker.rpc.watch import WatchCall
from broker.service.messages import ServedToken
from broker.v1 import token_service_pb2
from broker.v1.token_service_pb2_grpc import TokenServiceServicer

NO_DEADLINE: Final = timedelta(seconds=30)
"""For a caller without a deadline; the contract with callers."""


_Result = token_service_pb2.BatchGetAccessTokensResponse.Result


class TokenService(TokenServiceServicer):
    """Translates; what a token is and whether to renew it is decided behind `Tokens`."""

    def __init__(self, tokens: Tokens, watches: Watches) -> None:
        """`watches`: who tells of changes (`service.watching`)."""
        self._tokens = tokens
        self._watches = watches

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
        """Answers for each tenant as `GetAccessToken` does, all at once."""
        tenants, budget, caller = read_batch(request), budget_of(context), current_caller()
        async with asyncio.TaskGroup() as tasks:
            results = [
                tasks.create_task(self._result(tenant, budget, caller), name="one of a batch")
                for tenant in tenants
            ]
        return token_service_pb2.BatchGetAccessTokensResponse(
            results=[each.result() for each in results]
        )

    async def _result(self, tenant: str, budget: timedelta, caller: Caller) -> _Result:
        try:
            caller.check(tenant)
            served = await self._tokens.get_access_token(
                tenant, rejected_generation=None, budget=budget
            )
            return _Result(tenant=tenant, token=self._hand_out(tenant, served))
        except BrokerError as error:
            return _Result(tenant=tenant, status=status_of(error, tenant=tenant))

    async def WatchAccessTokens(
        self,
        request_iterator: AsyncIterator[token_service_pb2.WatchAccessTokensRequest],
        context: Context,
    ) -> AsyncGenerator[token_service_pb2.WatchAccessTokensResponse, None]:
        """Tells of every change until the caller goes."""
        with self._watches.watch() as watch:
            call = WatchCall(self._watches, watch, current_caller(), hand_out=self._hand_out)
            async with aclosing(call.answers(request_iterator)) as answers:
                async for answer in answers:
                    yield answer

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
    """Returns the time until the caller's deadline, or what a caller without one is given."""
    remaining = deadline_of(context)
    return NO_DEADLINE if remaining is None else remaining


def deadline_of(context: Context) -> timedelta | None:
    """Returns the time until the caller's deadline, never negative; None: there is none."""
    remaining = seconds_remaining(context)
    return None if remaining is None else timedelta(seconds=remaining)
