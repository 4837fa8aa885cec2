"""A call of WatchAccessTokens without a wire: how much it keeps for a caller that does not read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from broker.domain.errors import InvalidRequest
from broker.rpc.caller import ANONYMOUS, Caller
from broker.rpc.watch import MOST_TENANTS, WatchCall
from broker.v1.token_service_pb2 import WatchAccessTokensRequest
from support.fake_broker import FakeBroker
from support.virtual_time import in_virtual_time, let_others_run


async def endless_refusals() -> AsyncIterator[WatchAccessTokensRequest]:
    """Asks for tenants whose names nobody can have, ever other ones."""
    for number in range(0, 3 * MOST_TENANTS, 1000):
        names = [f"bad name {number + each}" for each in range(1000)]
        yield WatchAccessTokensRequest(subscribe=WatchAccessTokensRequest.Subscribe(tenants=names))


async def read_one(call: WatchCall) -> None:
    """Reads one answer, and leaves when all has been asked."""
    async with aclosing(call.answers(endless_refusals())) as answers:
        await anext(answers)
        await let_others_run()


@in_virtual_time
async def test_refusals_that_nobody_reads_do_not_pile_up() -> None:
    broker, caller = FakeBroker(), Caller(identity=ANONYMOUS, rpc="TokenService/WatchAccessTokens")
    with broker.watching.watch() as watch:
        call = WatchCall(
            broker.watching, watch, caller, hand_out=lambda *_: pytest.fail("no token")
        )

        with pytest.raises(InvalidRequest):
            await read_one(call)

        assert watch.untold <= MOST_TENANTS
