"""What a TokenClient keeps, for how long, and when it asks; in virtual time."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from broker.client import (
    AccessToken,
    BrokerUnreachable,
    ProviderUnavailable,
    ReauthRequired,
    RefreshInProgress,
    TokenBrokerError,
    TokenClient,
    reading,
)
from broker.domain import freshness
from support.client_stories import client_of
from support.fake_calls import FakeCalls, answer_of, failure
from support.virtual_time import in_virtual_time, let_others_run, pass_time


@in_virtual_time
async def test_a_token_within_its_lease_is_used_without_asking() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        token = await client.get("acme")
        calls.answer = failure()
        await pass_time(479.9)

        assert await client.get("acme") is token
        assert client.cached("acme") is token
    assert len(calls.asked) == 1


@in_virtual_time
async def test_a_living_token_beyond_its_lease_is_not_used() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        await client.get("acme")
        calls.answer = failure()
        await pass_time(480)

        with pytest.raises(BrokerUnreachable):
            await client.get("acme")
        assert client.cached("acme") is None


@in_virtual_time
async def test_a_lease_is_counted_from_the_question() -> None:
    calls = FakeCalls()
    calls.delay = 5
    async with client_of(calls) as client:
        await client.get("acme")
        await pass_time(474.9)
        assert client.cached("acme") is not None

        await pass_time(0.1)

        assert client.cached("acme") is None


@in_virtual_time
async def test_who_asks_shortly_before_a_rotation_is_answered_by_one_call_after_it() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client, asyncio.TaskGroup() as tasks:
        await client.get("acme")
        await pass_time(480.1)
        calls.answer = answer_of(2)

        asks = [tasks.create_task(client.get("acme"), name="asks") for _ in range(3)]

        assert {(await each).generation for each in asks} == {2}
        assert asyncio.get_running_loop().time() == pytest.approx(480.55)
    assert len(calls.asked) == 2


@in_virtual_time
async def test_half_of_a_callers_time_is_left_for_the_call() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        await client.get("acme")
        await pass_time(480.1)

        await client.get("acme", timeout=0.2)
    assert calls.asked[1].seconds == pytest.approx(0.1)


@in_virtual_time
async def test_after_a_slow_answer_nobody_waits_longer_for_the_rotation() -> None:
    calls = FakeCalls()
    calls.delay = 5
    async with client_of(calls) as client:
        await client.get("acme")
        calls.delay = 0
        await pass_time(475.1)

        await client.get("acme")

        assert asyncio.get_running_loop().time() == pytest.approx(481.05)


@in_virtual_time
async def test_a_token_that_dies_with_its_lease_is_not_used_beyond_it() -> None:
    calls = FakeCalls()
    calls.answer = answer_of(1, reuse_for=596)
    async with client_of(calls) as client:
        await client.get("acme")
        await pass_time(595.9)
        assert client.cached("acme") is not None

        await pass_time(0.1)

        assert client.cached("acme") is None


def test_the_client_knows_how_long_before_a_rotation_a_promise_ends() -> None:
    assert freshness.REUSE_MARGIN.total_seconds() == reading.REUSE_MARGIN


@in_virtual_time
async def test_a_degraded_token_is_asked_for_again() -> None:
    calls = FakeCalls()
    calls.answer = answer_of(1, reuse_for=0, degraded=True)
    async with client_of(calls) as client:
        assert (await client.get("acme")).is_degraded
        assert (await client.get("acme")).is_degraded
    assert len(calls.asked) == 2


@in_virtual_time
async def test_a_thousand_who_ask_at_once_are_one_call() -> None:
    calls = FakeCalls()
    calls.delay = 1
    async with client_of(calls) as client:
        tokens = await asyncio.gather(*(client.get("acme") for _ in range(1000)))
    assert len({id(each) for each in tokens}) == 1
    assert len(calls.asked) == 1


@in_virtual_time
async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    calls = FakeCalls()
    calls.delay = 1
    async with client_of(calls) as client, asyncio.TaskGroup() as tasks:
        leaves = tasks.create_task(client.get("acme"), name="leaves")
        stays = tasks.create_task(client.get("acme"), name="stays")
        await let_others_run()

        leaves.cancel()

        assert (await stays).generation == 1
    assert len(calls.asked) == 1


@in_virtual_time
async def test_a_deadline_is_passed_on_and_kept() -> None:
    calls = FakeCalls()
    calls.delay = 60
    async with client_of(calls) as client:
        with pytest.raises(BrokerUnreachable) as raised:
            await client.get("acme", timeout=3)
        assert asyncio.get_running_loop().time() == 3
    assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert calls.asked[0].seconds == 3


@in_virtual_time
async def test_who_joined_with_more_time_is_not_ended_by_the_first_deadline() -> None:
    calls = FakeCalls()
    calls.delay = 5
    async with client_of(calls) as client, asyncio.TaskGroup() as tasks:
        hasty = tasks.create_task(outcome(client, timeout=3), name="hasty")
        patient = tasks.create_task(outcome(client, timeout=30), name="patient")

        assert isinstance(await hasty, BrokerUnreachable)
        assert isinstance(await patient, AccessToken)
    assert [each.seconds for each in calls.asked] == [3, 27]


async def outcome(client: TokenClient, *, timeout: float) -> AccessToken | TokenBrokerError:  # noqa: ASYNC109 - the client's own
    try:
        return await client.get("acme", timeout=timeout)
    except TokenBrokerError as error:
        return error


@in_virtual_time
async def test_what_would_be_answered_again_is_not_asked_again() -> None:
    calls = FakeCalls()
    calls.answer = failure("PROVIDER_UNAVAILABLE", retry_after=5)
    async with client_of(calls) as client:
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await client.get("acme")
        assert len(calls.asked) == 1

        calls.answer = answer_of(2)
        await pass_time(5)
        assert (await client.get("acme")).generation == 2


@in_virtual_time
async def test_one_callers_short_deadline_holds_nobody_else() -> None:
    calls = FakeCalls()
    calls.answer = failure("REFRESH_IN_PROGRESS", retry_after=5)
    async with client_of(calls) as client:
        with pytest.raises(RefreshInProgress):
            await client.get("acme")
        calls.answer = answer_of(2)

        assert (await client.get("acme")).generation == 2


@in_virtual_time
async def test_a_failure_that_waiting_does_not_mend_is_asked_about_again() -> None:
    calls = FakeCalls()
    calls.answer = failure("REAUTH_REQUIRED", code=grpc.StatusCode.FAILED_PRECONDITION)
    async with client_of(calls) as client:
        with pytest.raises(ReauthRequired):
            await client.get("acme")
        calls.answer = answer_of(2)

        assert (await client.get("acme")).generation == 2


@in_virtual_time
async def test_a_report_names_the_generation_and_brings_the_newer_token() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        await client.get("acme")
        calls.answer = answer_of(2)

        assert (await client.report_rejected("acme", 1)).generation == 2
        assert (await client.get("acme")).generation == 2
    assert [each.rejected for each in calls.asked] == [0, 1]


@in_virtual_time
async def test_a_report_of_what_was_replaced_already_asks_nobody() -> None:
    calls = FakeCalls()
    calls.answer = answer_of(2)
    async with client_of(calls) as client:
        await client.get("acme")

        assert (await client.report_rejected("acme", 1)).generation == 2
    assert len(calls.asked) == 1


@in_virtual_time
async def test_a_thousand_reports_are_one_call() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        await client.get("acme")
        calls.answer, calls.delay = answer_of(2), 1

        reports = (client.report_rejected("acme", 1) for _ in range(1000))
        tokens = await asyncio.gather(*reports)
    assert {each.generation for each in tokens} == {2}
    assert [each.rejected for each in calls.asked] == [0, 1]


@in_virtual_time
async def test_a_report_does_not_take_the_answer_to_an_older_question() -> None:
    calls = FakeCalls()
    calls.delay = 1
    async with client_of(calls) as client, asyncio.TaskGroup() as tasks:
        plain = tasks.create_task(client.get("acme"), name="asks")
        await let_others_run()
        report = tasks.create_task(client.report_rejected("acme", 1), name="reports")
        await let_others_run()
        calls.answer = answer_of(2)

        assert (await plain).generation == 1
        assert (await report).generation == 2
    assert [each.rejected for each in calls.asked] == [0, 1]


@in_virtual_time
async def test_a_late_answer_brings_no_older_token_back() -> None:
    calls = FakeCalls()
    calls.answer = answer_of(5)
    async with client_of(calls) as client:
        await client.get("acme")
        await pass_time(480)
        calls.answer = answer_of(4)

        await client.get("acme")
        calls.answer = answer_of(6)

        assert (await client.get("acme")).generation == 6


@in_virtual_time
async def test_a_client_that_is_closed_tells_those_who_wait() -> None:
    calls = FakeCalls()
    calls.delay = 60
    async with asyncio.TaskGroup() as tasks:
        async with client_of(calls) as client:
            waits = tasks.create_task(outcome(client, timeout=30), name="waits")
            await let_others_run()
        assert isinstance(await waits, BrokerUnreachable)


@in_virtual_time
async def test_a_client_that_is_not_open_says_so() -> None:
    client = client_of(FakeCalls())

    with pytest.raises(RuntimeError, match="not open"):
        await client.get("acme")


@in_virtual_time
async def test_a_defect_reaches_who_asked_and_ends_nothing_else() -> None:
    calls = FakeCalls()
    calls.answer = KeyError("a defect")
    async with client_of(calls) as client:
        with pytest.raises(KeyError):
            await client.get("acme")
        calls.answer = answer_of(1)

        assert (await client.get("acme")).generation == 1


@in_virtual_time
async def test_tenants_who_came_once_do_not_stay_for_ever() -> None:
    calls = FakeCalls()
    async with client_of(calls) as client:
        for number in range(1000):
            await client.get(f"tenant-{number}")
        await pass_time(480)

        await client.get("acme")

        assert repr(client) == "<TokenClient localhost:1: 1 tokens>"


def test_a_client_of_another_event_loop_says_so() -> None:
    with asyncio.Runner() as runner, asyncio.Runner() as other:
        calls = FakeCalls()
        client = TokenClient("localhost:1", calls=calls)
        runner.run(client.__aenter__())
        with pytest.raises(RuntimeError, match="another event loop"):
            other.run(client.get("acme"))
        runner.run(client.__aexit__(None, None, None))


@pytest.mark.parametrize(
    "address",
    [
        "localhost:1",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "unix:/a",
        "dns:///localhost:1",
    ],
)
def test_this_machine_may_be_asked_in_clear_text(address: str) -> None:
    TokenClient(address)


@pytest.mark.parametrize("address", ["broker:1", "ipv4:127.0.0.1:1,192.0.2.1:2", "dns:///broker:1"])
def test_another_machine_is_asked_over_tls(address: str) -> None:
    with pytest.raises(ValueError, match="set ca_file"):
        TokenClient(address)


def test_no_token_is_shown_by_what_holds_it() -> None:
    assert "fake-access" not in repr(token())


def token() -> AccessToken:
    """Returns what a call brings."""
    with asyncio.Runner() as runner:
        return runner.run(_one())


async def _one() -> AccessToken:
    async with client_of(FakeCalls()) as client:
        return await client.get("acme")
