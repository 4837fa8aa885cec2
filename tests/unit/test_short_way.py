"""GetAccessToken from memory, bytes to bytes: the same answers as the long way's, or none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, cast

import pytest

from broker.domain.errors import CallerRateLimited, CallerUnauthenticated
from broker.domain.policy import Policy, Rule, Tenants
from broker.ports import GrantMoved
from broker.rpc.caller import Context
from broker.rpc.gate import OpenGate, PolicyGate
from broker.rpc.messages import token_message
from broker.rpc.short_way import GET, ShortWay
from broker.service.at_hand import AtHand
from broker.service.disclosures import Disclosures
from broker.service.usage import Usage
from broker.v1.token_service_pb2 import GetAccessTokenRequest, GetAccessTokenResponse
from support.fake_records import FakeRecords
from support.fake_store import FakeGrantStore
from support.service import Fleet, Replica, fleet
from support.virtual_time import in_virtual_time, pass_time

WEB: Final = "dns:web"

_NO_CONTEXT: Final = cast("Context", None)

A_MOMENT: Final = timedelta(seconds=0.1)


class Desk:
    """The short way to one replica's memory, and all that is told on it."""

    def __init__(self, ours: Fleet, gate: PolicyGate | None = None) -> None:
        self.one: Replica = ours.replica()
        self.disclosures = Disclosures(FakeRecords(ours.world))
        self.usage = Usage(FakeGrantStore(ours.world))
        self.told: list[float] = []
        at_hand = AtHand(self.one.memory, self.usage, self.disclosures)
        self.short = ShortWay(
            at_hand, gate or OpenGate(), told=lambda seconds, *_: self.told.append(seconds)
        )

    def encoded(self, tenant: str = "acme", rejected: int | None = None) -> bytes | None:
        request = GetAccessTokenRequest(tenant=tenant, rejected_generation=rejected)
        return self.short.answer(request.SerializeToString(), _NO_CONTEXT)

    def ask(self) -> GetAccessTokenResponse:
        answer = self.encoded()
        assert answer is not None
        return GetAccessTokenResponse.FromString(answer)

    def noted(self) -> tuple[int, int, int]:
        return len(self.told), len(self.usage), len(self.disclosures)


def gate_for(
    *patterns: str,
    scopes: frozenset[str] = frozenset(),
    check_rate: Callable[[str], None] = lambda _: None,
    known: Callable[[Context], str | None] = lambda _: WEB,
) -> PolicyGate:
    tenants = Tenants.matching(patterns)
    rule = Rule(identity=WEB, rpcs=frozenset({GET}), tenants=tenants, scopes=scopes)
    policy = Policy(rules=(rule,))

    async def identify(_: Context) -> str:
        raise AssertionError("nothing is waited for")

    return PolicyGate(identify=identify, policy=lambda: policy, check_rate=check_rate, known=known)


def refuse_as_nobody(_: Context) -> str:
    raise CallerUnauthenticated("it names nobody")


def refuse_as_too_often(_: str) -> None:
    raise CallerRateLimited("too often", retry_after=timedelta(seconds=1), metadata={})


@in_virtual_time
async def test_it_answers_what_the_long_way_would() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()

        answer, expected = desk.ask(), token_message(await desk.one.get())

        for message in (answer, expected):
            message.ClearField("expires_in")
            message.ClearField("reuse_for")
        assert answer == expected


@in_virtual_time
async def test_its_spans_are_never_too_long_and_hardly_too_short() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()

        for _ in range(25):
            answer, right = desk.ask(), await desk.one.get()
            spans = (answer.expires_in.ToTimedelta(), answer.reuse_for.ToTimedelta())
            missing = (right.expires_in - spans[0], right.reuse_for - spans[1])
            assert all(timedelta(0) <= each <= A_MOMENT for each in missing)
            await pass_time(0.03)


@in_virtual_time
async def test_an_answer_is_written_once_for_who_asks_often() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()

        first = desk.encoded()
        await pass_time(0.09)
        second = desk.encoded()
        await pass_time(0.02)

        assert second is first
        assert desk.encoded() != first


@in_virtual_time
async def test_news_of_a_newer_token_counts_at_once() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()
        desk.ask()

        desk.one.memory.moved(GrantMoved(tenant="acme", generation=8, version=9))

        assert desk.encoded() is None
        assert desk.noted() == (1, 1, 1)


@in_virtual_time
async def test_a_newer_token_is_the_one_that_is_answered() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()
        desk.ask()

        ours.connect(generation=8)
        desk.one.memory.mark_all_stale()
        await pass_time(0.01)
        await desk.one.get()

        assert desk.ask().generation == 8


@in_virtual_time
async def test_a_token_that_is_due_takes_the_long_way() -> None:
    async with fleet() as ours:
        grant = ours.connect()
        desk = Desk(ours)
        served = await desk.one.get()
        assert grant.renew_at is not None

        await pass_time((served.reuse_for + timedelta(seconds=4.9)).total_seconds())
        assert desk.ask().reuse_for.ToTimedelta() == timedelta(0)
        await pass_time(0.2)

        assert desk.encoded() is None


@in_virtual_time
@pytest.mark.parametrize(
    "request_bytes",
    [
        GetAccessTokenRequest(tenant="acme", rejected_generation=6).SerializeToString(),
        GetAccessTokenRequest(tenant="acme", rejected_generation=0).SerializeToString(),
        GetAccessTokenRequest(tenant="other").SerializeToString(),
        GetAccessTokenRequest(tenant=" acme").SerializeToString(),
        b"",
        b"\x0a\x04acm",
        b"\x0a\x02\xff\xff",
    ],
    ids=["report", "zero", "unknown", "malformed", "empty", "cut", "no text"],
)
async def test_what_is_not_plain_takes_the_long_way(request_bytes: bytes) -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()

        assert desk.short.answer(request_bytes, _NO_CONTEXT) is None
        assert desk.noted() == (0, 0, 0)


@in_virtual_time
async def test_a_caller_whom_the_policy_allows_is_on_record() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours, gate_for("acme"))
        await desk.one.get()

        desk.ask()
        await desk.disclosures.flush()

        assert desk.noted() == (1, 1, 0)
        assert ours.world.disclosures["acme", WEB].last_generation == 7


@in_virtual_time
@pytest.mark.parametrize(
    "gate",
    [
        gate_for("other"),
        gate_for("*", scopes=frozenset({"one:that-it-lacks"})),
        gate_for("*", known=lambda _: None),
        gate_for("*", known=lambda _: "dns:somebody-else"),
        gate_for("*", known=refuse_as_nobody),
        gate_for("*", check_rate=refuse_as_too_often),
    ],
    ids=["tenant", "scope", "unknown", "identity", "unauthenticated", "rate"],
)
async def test_whoever_is_refused_takes_the_long_way(gate: PolicyGate) -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours, gate)
        await desk.one.get()

        assert desk.encoded() is None
        assert desk.noted() == (0, 0, 0)


@in_virtual_time
async def test_who_may_not_have_it_spends_no_call() -> None:
    spent: list[str] = []
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours, gate_for("other", check_rate=spent.append))
        await desk.one.get()

        desk.encoded()

        assert spent == []


@in_virtual_time
async def test_an_answer_that_is_kept_is_not_shown() -> None:
    async with fleet() as ours:
        ours.connect()
        desk = Desk(ours)
        await desk.one.get()

        access_token = desk.ask().access_token

        assert access_token not in repr(vars(desk.short))
        assert "acme" in repr(vars(desk.short))
