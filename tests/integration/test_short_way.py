"""The short way of GetAccessToken on a real server: what it answers is sent as it is."""

from __future__ import annotations

from broker.domain.facts import DefectMet
from broker.rpc.caller import Context
from broker.rpc.short_way import GET
from broker.v1.token_service_pb2 import GetAccessTokenRequest, GetAccessTokenResponse
from support.rpc import EndedCall, serving

REQUEST = GetAccessTokenRequest(tenant="acme")

AT_ONCE = GetAccessTokenResponse(access_token="at once", generation=3)


async def test_what_is_at_hand_is_answered_and_nothing_else_asked() -> None:
    asked: list[bytes] = []

    def at_once(request: bytes, _: Context) -> bytes:
        asked.append(request)
        return AT_ONCE.SerializeToString()

    async with serving(at_once=at_once) as served:
        answer = await served.tokens.GetAccessToken(REQUEST)

        assert answer == AT_ONCE
        assert asked == [REQUEST.SerializeToString()]
        assert (served.broker.asked, served.told.calls) == ([], [])


async def test_what_is_not_at_hand_goes_the_long_way() -> None:
    async with serving(at_once=lambda *_: None) as served:
        answer = await served.tokens.GetAccessToken(REQUEST)

        assert answer.generation == 7
        assert served.told.calls == [EndedCall(method=GET, code="OK")]


async def test_a_defect_of_the_short_way_is_told_and_fails_no_call() -> None:
    defect = ZeroDivisionError("on purpose")

    def at_once(_request: bytes, _: Context) -> bytes:
        raise defect

    async with serving(at_once=at_once) as served:
        answer = await served.tokens.GetAccessToken(REQUEST)

        assert answer.generation == 7
        assert served.told.facts == [DefectMet(defect_id="", where=GET, error=defect)]
