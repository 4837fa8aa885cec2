"""One call of WatchAccessTokens: what its caller may see, in its order, with signs of life.

Reads and writes at the same time: a caller that reads slowly can still unsubscribe, and one that
has asked for all it wants and says no more (as grpcurl does) is told until it goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

from broker.domain.errors import BrokerError, FieldViolation, InvalidRequest, ScopeMissing
from broker.domain.fields import check_tenant
from broker.domain.policy import Policy
from broker.rpc.caller import Caller
from broker.rpc.ports import Watches
from broker.rpc.status import status_of
from broker.rpc.validation import read_watch
from broker.service.messages import ServedToken
from broker.service.watch import Told, Watch
from broker.v1.token_service_pb2 import (
    GetAccessTokenResponse,
    WatchAccessTokensRequest,
    WatchAccessTokensResponse,
)

HandOut: TypeAlias = Callable[[str, ServedToken], GetAccessTokenResponse]
"""Makes what a caller gets of a tenant's token, and puts it on record. Raises `ScopeMissing`."""

SILENCE_SECONDS: Final = 15.0
"""Until a sign of life: half of the promised 30, so that one may be late. The policy is looked at
again as often."""

MOST_TENANTS: Final = 10_000
"""In one stream: what a whole replica is built for. A caller with more opens another stream."""


class WatchCall:
    """Serves one caller."""

    def __init__(
        self, watches: Watches, watch: Watch, caller: Caller, *, hand_out: HandOut
    ) -> None:
        """`watch`: the caller's own."""
        self._hand_out = hand_out
        self._watches = watches
        self._watch = watch
        self._caller = caller
        self._policy: Policy = caller.policy()

    async def answers(
        self, requests: AsyncIterator[WatchAccessTokensRequest]
    ) -> AsyncGenerator[WatchAccessTokensResponse, None]:
        """Yields what the caller is told, until it leaves or the replica drains.

        Raises:
            InvalidRequest: a request names nothing to do, or too much.
        """
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(requests), name="reads what to watch")
            try:
                async with aclosing(self._watch.changes(silence=SILENCE_SECONDS)) as changes:
                    async for told in changes:
                        self._heed_policy()
                        # What it has just withdrawn is told as that, in its turn.
                        if told is None or self._may_hear(told):
                            yield self._message(told)
            except GeneratorExit:
                pass  # the caller has left; the group would take it for a failure
            finally:
                reader.cancel()
        if self._watch.failure is not None:
            raise self._watch.failure

    async def _read(self, requests: AsyncIterator[WatchAccessTokensRequest]) -> None:
        try:
            async for request in requests:
                self._heed(request)
        except Exception as error:  # noqa: BLE001 - raised where the call ends, as any is
            self._watch.fail(error)

    def _heed(self, request: WatchAccessTokensRequest) -> None:
        subscribed, unsubscribed = read_watch(request)
        for tenant in unsubscribed:
            self._watches.unsubscribe(self._watch, tenant)
        # Refusals are told of tenants that are not watched: unread, they would pile up for ever.
        kept = max(len(self._watch), self._watch.untold)
        if kept + len(subscribed) > MOST_TENANTS:
            what = f"must not make more than {MOST_TENANTS} tenants in one stream"
            raise InvalidRequest([FieldViolation(field="subscribe.tenants", description=what)])
        for tenant in subscribed:
            self._subscribe(tenant)

    def _subscribe(self, tenant: str) -> None:
        violation = check_tenant(tenant, "subscribe.tenants")
        try:
            if violation is not None:
                raise InvalidRequest([violation])
            self._caller.check(tenant)
        except BrokerError as error:
            # That of the others goes on.
            self._watches.unsubscribe(self._watch, tenant)
            self._watch.tell(tenant, error)
        else:
            self._watches.subscribe(self._watch, tenant)

    def _heed_policy(self) -> None:
        """Ends the subscriptions that a newer policy does not allow."""
        policy = self._caller.policy()
        if policy is self._policy:
            return
        self._policy = policy
        for tenant in self._watch.tenants:
            try:
                self._caller.check(tenant)
            except BrokerError as error:
                self._watches.unsubscribe(self._watch, tenant)
                self._watch.tell(tenant, error)

    def _may_hear(self, told: Told) -> bool:
        """Whether it is still watched, or is why it is not."""
        return told.tenant in self._watch or isinstance(told.state, BrokerError)

    def _message(self, told: Told | None) -> WatchAccessTokensResponse:
        if told is None:
            return WatchAccessTokensResponse(heartbeat=WatchAccessTokensResponse.Heartbeat())
        state = told.state
        if not isinstance(state, BrokerError):
            try:
                token = self._hand_out(told.tenant, state)
                return WatchAccessTokensResponse(tenant=told.tenant, token=token)
            except ScopeMissing as error:
                state = error
        return WatchAccessTokensResponse(
            tenant=told.tenant, status=status_of(state, tenant=told.tenant)
        )
