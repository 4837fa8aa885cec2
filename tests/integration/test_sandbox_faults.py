"""The sandbox misbehaves on request, over real HTTP, and its record tells what really happened."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from broker.sandbox.faults import (
    Alter,
    Chance,
    Cut,
    Delay,
    Dice,
    Drop,
    Half,
    Hang,
    Hold,
    Revoke,
    Step,
    When,
    fail,
    rate_limit,
    refuse,
    rubbish,
)
from broker.sandbox.record import Presentation
from broker.sandbox.sandbox import Sandbox
from support.sandbox_client import ACME, BASIC, BJERG, SandboxClient, Tokens


@pytest.fixture
async def tokens(client: SandboxClient) -> Tokens:
    return await client.connected()


def last(sandbox: Sandbox) -> Presentation:
    return sandbox.record.presentations[-1]


@pytest.mark.parametrize("cut", ["reset", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_ends_without_an_answer(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens, when: When, cut: Cut
) -> None:
    sandbox.faults.add(Drop(when=when, cut=cut))

    expected = httpx.ReadError if cut == "reset" else httpx.RemoteProtocolError
    with pytest.raises(expected):
        await client.refresh(tokens["refresh_token"])

    entry = last(sandbox)
    assert entry.outcome == ("not_processed" if when == "before" else "rotated")
    assert (entry.is_delivered, entry.status, entry.has_hung_up) == (False, None, False)


async def test_a_reset_before_processing_changes_nothing(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Drop(when="before"))
    with pytest.raises(httpx.ReadError):
        await client.refresh(tokens["refresh_token"])

    assert await client.try_on(tokens["access_token"]) == 200
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_reset_after_processing_leaves_a_rotated_grant_behind(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Drop(when="after"))
    with pytest.raises(httpx.ReadError):
        await client.refresh(tokens["refresh_token"])

    assert await client.try_on(tokens["access_token"]) == 401
    assert sandbox.record.counts().rotations == 1
    assert sandbox.record.counts().undelivered == 1
    assert (await client.refresh(tokens["refresh_token"])).status_code == 400
    assert last(sandbox).has_killed


async def _read_into(received: bytearray, answer: httpx.Response) -> None:
    async for chunk in answer.aiter_raw():
        received += chunk


@pytest.mark.parametrize("cut", ["reset", "close"])
async def test_half_an_answer_arrives_with_its_whole_length_announced(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens, cut: Cut
) -> None:
    sandbox.faults.add(Half(cut=cut))
    received = bytearray()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    async with client.http.stream("POST", "/oauth/token", data=form, auth=BASIC) as answer:
        announced = int(answer.headers["Content-Length"])
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await _read_into(received, answer)

    assert answer.status_code == 200
    assert len(received) == announced // 2
    assert (last(sandbox).outcome, last(sandbox).is_delivered) == ("rotated", False)


@pytest.mark.parametrize(
    ("step", "status", "error", "outcome"),
    [
        (refuse("invalid_client", status=401), 401, "invalid_client", "not_processed"),
        (refuse("temporarily_unavailable"), 400, "temporarily_unavailable", "not_processed"),
        (refuse("invalid_grant", when="after"), 400, "invalid_grant", "rotated"),
        (rate_limit(), 429, "rate_limited", "not_processed"),
        (rate_limit(when="after"), 429, "rate_limited", "rotated"),
        (fail(500), 500, None, "not_processed"),
        (fail(502, when="after"), 502, None, "rotated"),
        (fail(504, when="after"), 504, None, "rotated"),
        (rubbish(), 200, None, "rotated"),
        (rubbish(403, when="before"), 403, None, "not_processed"),
    ],
)
async def test_another_answer_is_given_instead(
    client: SandboxClient,
    sandbox: Sandbox,
    tokens: Tokens,
    step: Step,
    status: int,
    error: str | None,
    outcome: str,
) -> None:
    sandbox.faults.add(step)

    answer = await client.refresh(tokens["refresh_token"])

    entry = last(sandbox)
    assert answer.status_code == entry.status == status
    assert entry.error == error
    assert entry.outcome == outcome
    assert (await client.try_on(tokens["access_token"]) == 200) is (outcome == "not_processed")


async def test_rubbish_cannot_be_read(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(rubbish())

    answer = await client.refresh(tokens["refresh_token"])

    with pytest.raises(ValueError, match="utf-8"):
        json.loads(answer.content)


@pytest.mark.parametrize("retry_after", ["7", "Wed, 21 Oct 2037 07:28:00 GMT", "soon", None])
async def test_a_rate_limit_says_when_to_come_back_in_any_words(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens, retry_after: str | None
) -> None:
    sandbox.faults.add(rate_limit(retry_after=retry_after))

    answer = await client.refresh(tokens["refresh_token"])

    assert answer.headers.get("Retry-After") == retry_after


async def test_fields_are_left_out_or_changed(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    omit = ("refresh_token", "token_type", "scope")
    sandbox.faults.add(Alter(omit=omit, replace={"expires_in": "900"}))

    answer = await client.refresh(tokens["refresh_token"])

    assert answer.json().keys() == {"access_token", "expires_in"}
    assert answer.json()["expires_in"] == "900"


async def test_an_error_keeps_its_fields(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Alter(omit=("error",)))

    assert (await client.refresh("never-issued")).json()["error"] == "invalid_grant"


async def test_the_company_disconnects_just_before_or_just_after(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Revoke(when="after"))
    sandbox.faults.add(Revoke(when="before"), grant_type="refresh_token")

    new = await client.refresh(tokens["refresh_token"])

    assert new.status_code == 200
    assert await client.try_on(new.json()["access_token"]) == 401
    other = await client.connected()
    assert (await client.refresh(other["refresh_token"])).status_code == 400


async def test_a_delay_takes_its_time(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Delay(seconds=0.05), Delay(seconds=0.05, when="after"))
    loop = asyncio.get_running_loop()
    start = loop.time()

    assert (await client.refresh(tokens["refresh_token"])).status_code == 200
    assert loop.time() - start >= 0.1


async def test_a_request_held_before_is_unprocessed_until_released(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="before"))

    async with asyncio.TaskGroup() as group:
        refresh = group.create_task(client.refresh(tokens["refresh_token"]))
        await sandbox.until(held=1)
        assert await client.try_on(tokens["access_token"]) == 200
        assert sandbox.release() == 1

    assert refresh.result().status_code == 200
    assert await client.try_on(tokens["access_token"]) == 401


async def test_a_request_held_after_is_processed_and_unanswered(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="after"))

    async with asyncio.TaskGroup() as group:
        refresh = group.create_task(client.refresh(tokens["refresh_token"]))
        await sandbox.until(held=1)
        assert await client.try_on(tokens["access_token"]) == 401
        assert (last(sandbox).outcome, last(sandbox).is_delivered) == ("rotated", None)
        sandbox.release()

    assert await client.try_on(refresh.result().json()["access_token"]) == 200
    assert last(sandbox).is_delivered


async def test_held_requests_are_released_in_any_order(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    other = await client.connected(BJERG)
    sandbox.faults.add(Hold(), times=2)

    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.refresh(tokens["refresh_token"]))
        await sandbox.until(held=1)
        second = group.create_task(client.refresh(other["refresh_token"]))
        await sandbox.until(held=2)
        sandbox.room.release(2)
        assert (await second).status_code == 200
        assert not first.done()
        sandbox.room.release(1)


async def test_two_presentations_at_once_are_on_record(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(), times=2)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(client.refresh(tokens["refresh_token"]))
        await sandbox.until(held=2)
        sandbox.release()

    *_, first, second = sandbox.record.presentations
    assert (first.overlaps, second.overlaps) == ((), (first.sequence,))
    assert {first.outcome, second.outcome} == {"rotated", "refused"}
    assert sandbox.record.counts().overlapping == 1
    assert sandbox.record.counts().presentations_of_superseded == 1


async def test_what_was_held_is_processed_although_the_client_has_gone(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="before"))
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await sandbox.until(held=1)

    refresh.cancel()
    await sandbox.until(hung_up=1)
    sandbox.release()
    await sandbox.until(finished=2)

    entry = last(sandbox)
    assert (entry.outcome, entry.is_delivered, entry.has_hung_up) == ("rotated", False, True)
    assert await client.try_on(tokens["access_token"]) == 401


async def test_a_presentation_whose_client_has_gone_overlaps_with_none(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="before"))
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await sandbox.until(held=1)
    refresh.cancel()
    await sandbox.until(hung_up=1)

    await client.refresh(tokens["refresh_token"])

    assert last(sandbox).overlaps == ()


async def test_a_hanging_request_ends_when_its_client_goes(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hang())
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await sandbox.until(held=1)
    assert last(sandbox).outcome == "rotated"

    refresh.cancel()
    await sandbox.until(finished=2)

    assert sandbox.room.held == {}
    assert last(sandbox).is_delivered is False


async def test_a_hanging_request_can_be_released(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hang())

    async with asyncio.TaskGroup() as group:
        refresh = group.create_task(client.refresh(tokens["refresh_token"]))
        await sandbox.until(held=1)
        sandbox.release()

    assert refresh.result().status_code == 200


async def test_a_held_request_can_be_reset(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="after"))
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await sandbox.until(held=1)

    sandbox.room.release(then="reset")

    with pytest.raises(httpx.ReadError):
        await refresh


async def test_steps_follow_each_other(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(when="after"), fail(502, when="after"), Half())

    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await sandbox.until(held=1)
    sandbox.release()

    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await refresh
    assert last(sandbox).status == 502
    assert last(sandbox).faults == ("hold after", "answer 502 after", "half after")


async def test_a_rule_is_for_the_requests_it_names_and_no_others(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    other = await client.connected(BJERG)
    sandbox.faults.add(fail(), grant_type="refresh_token", company=BJERG)
    sandbox.faults.add(fail(), grant_type="authorization_code")

    assert (await client.refresh(tokens["refresh_token"])).status_code == 200
    assert (await client.refresh(other["refresh_token"])).status_code == 503
    assert (await client.refresh(other["refresh_token"])).status_code == 200
    assert (await client.exchange(await client.code())).status_code == 503


async def test_a_rule_is_for_so_many_requests(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(fail(), times=2)

    statuses = [(await client.refresh(tokens["refresh_token"])).status_code for _ in range(3)]

    assert statuses == [503, 503, 200]


async def test_the_api_and_introspection_misbehave_too(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(fail(502), endpoint="api")
    sandbox.faults.add(Drop(), endpoint="introspect")

    assert await client.try_on(tokens["access_token"]) == 502
    assert await client.try_on(tokens["access_token"]) == 200
    with pytest.raises(httpx.ReadError):
        await client.http.post("/oauth/token/introspect", data={"token": "x"}, auth=BASIC)


async def statuses_under(sandbox: Sandbox, client: SandboxClient, dice: Dice) -> list[int]:
    sandbox.reset()
    sandbox.faults.throw(dice)
    form = {"grant_type": "refresh_token", "refresh_token": "never-issued"}
    return [(await client.post(form)).status_code for _ in range(30)]


async def test_random_faults_repeat_themselves_with_the_same_seed(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    chances = (
        Chance(probability=0.3, steps=(fail(503),)),
        Chance(probability=0.3, steps=(rate_limit(),)),
    )

    first = await statuses_under(sandbox, client, Dice(seed=7, chances=chances))
    again = await statuses_under(sandbox, client, Dice(seed=7, chances=chances))
    other = await statuses_under(sandbox, client, Dice(seed=8, chances=chances))

    assert first == again
    assert first != other
    assert set(first) == {400, 429, 503}


async def test_keep_alive_survives_errors_that_are_answered(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(fail(), times=2)
    ports = set()

    for _ in range(4):
        answer = await client.refresh(tokens["refresh_token"])
        ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))

    assert len(ports) == 1


async def test_an_introspection_that_is_held_judges_the_token_when_released(
    client: SandboxClient, sandbox: Sandbox, tokens: Tokens
) -> None:
    sandbox.faults.add(Hold(), endpoint="api")

    async with asyncio.TaskGroup() as group:
        tried = group.create_task(client.try_on(tokens["access_token"]))
        await sandbox.until(held=1)
        sandbox.server.disconnect(company=ACME)
        sandbox.release()

    assert tried.result() == 401
