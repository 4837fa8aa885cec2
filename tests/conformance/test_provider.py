"""What `ports.Provider` promises, of the fake and of the one that speaks HTTP with the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.errors import ProviderUnavailable, RefreshOutcomeUnknown
from broker.domain.requests import RefreshRequest
from broker.domain.secret import AccessToken, CodeVerifier, Secret
from broker.ports import Introspection, Presentation, Provider
from broker.sandbox.faults import (
    Alter,
    Drop,
    Half,
    Hang,
    Hold,
    Revoke,
    Step,
    fail,
    rate_limit,
    refuse,
    rubbish,
)
from broker.sandbox.sandbox import Sandbox
from support.pleo import refresh_of, window
from support.provider_worlds import ASKED, ProviderWorld, provider_world
from support.sandbox_client import ACME

UNHEARD_OF = AccessToken(Secret("a-fake-access-token"))


@pytest.fixture(params=["fake", "sandbox"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[ProviderWorld]:
    async with provider_world(request.param) as made:
        yield made


@pytest.fixture
def provider(world: ProviderWorld) -> Provider:
    return world.provider


@pytest.fixture
def sandbox(world: ProviderWorld) -> Sandbox:
    return world.sandbox


@pytest.fixture
async def tokens(world: ProviderWorld) -> Rotated:
    """What ACME's code was redeemed for."""
    return honoured(await world.provider.present(await world.code(), window()))


def honoured(result: Presentation) -> Rotated:
    assert isinstance(result.answer, Rotated)
    return result.answer


def refresh(tokens: Rotated) -> RefreshRequest:
    assert tokens.refresh_token is not None
    return RefreshRequest(refresh_token=tokens.refresh_token)


def access(tokens: Rotated) -> AccessToken:
    assert tokens.access_token is not None
    return tokens.access_token


async def test_a_code_is_redeemed_for_tokens(world: ProviderWorld) -> None:
    result = await world.provider.present(await world.code(), window())

    tokens = honoured(result)
    assert tokens.scopes == ASKED.scopes
    assert tokens.expires_in == timedelta(minutes=15)
    assert tokens.flags == ()
    assert result.http_status == 200


async def test_a_code_is_redeemed_once(world: ProviderWorld) -> None:
    request = await world.code()
    await world.provider.present(request, window())

    again = await world.provider.present(request, window())

    assert again.answer == Refused(error="invalid_grant")


async def test_a_code_needs_its_verifier(world: ProviderWorld) -> None:
    request = await world.code()
    other = replace(request, code_verifier=CodeVerifier(Secret("another-" + "v" * 43)))

    result = await world.provider.present(other, window())

    assert result.answer == Refused(error="invalid_grant")


async def test_a_refresh_rotates_and_kills_the_old_pair(
    provider: Provider, tokens: Rotated
) -> None:
    rotated = honoured(await provider.present(refresh(tokens), window()))

    assert rotated.refresh_token != tokens.refresh_token
    assert (await provider.introspect(access(tokens))).is_live is False
    assert (await provider.introspect(access(rotated))).is_live is True


async def test_a_rotated_token_shown_again_kills_the_grant(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    rotated = honoured(await provider.present(refresh(tokens), window()))

    again = await provider.present(refresh(tokens), window())
    after = await provider.present(refresh(rotated), window())

    assert again.answer == after.answer == Refused(error="invalid_grant")
    assert sandbox.record.counts().grants_killed_by_reuse == 1


async def test_with_grace_the_previous_token_rotates_once_more(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.server.settings = replace(sandbox.server.settings, mode="grace")
    await provider.present(refresh(tokens), window())

    again = await provider.present(refresh(tokens), window())

    assert isinstance(again.answer, Rotated)


@pytest.mark.parametrize("token", ["a-fake-token", "+/~= &%", "å\x00\r\n"])
async def test_a_token_that_was_never_issued_is_refused(provider: Provider, token: str) -> None:
    result = await provider.present(refresh_of(token), window())

    assert result.answer == Refused(error="invalid_grant")


async def test_large_tokens_pass(world: ProviderWorld) -> None:
    server = world.sandbox.server
    server.settings = replace(server.settings, secret_length=6000)
    tokens = honoured(await world.provider.present(await world.code(), window()))

    again = await world.provider.present(refresh(tokens), window())

    assert len(access(honoured(again)).reveal()) == 6000


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (refuse("invalid_grant"), Refused(error="invalid_grant")),
        (refuse("invalid_token", status=401), Refused(error="invalid_token")),
        (refuse("invalid_client", status=401), Misconfigured(error="invalid_client")),
        (
            rate_limit(retry_after="7"),
            NotProcessed(code="http_429", retry_after=timedelta(seconds=7)),
        ),
        (fail(502), Unknown(code="http_502")),
        (fail(404), Unknown(code="unreadable_404")),
        (rubbish(), Unknown(code="unreadable_200")),
        (Drop(), Unknown(code="connection_lost")),
        (Drop(when="after", cut="close"), Unknown(code="connection_lost")),
        (Half(), Unknown(code="cut_short")),
        (Revoke(), Refused(error="invalid_grant")),
    ],
)
async def test_a_failure_is_told_as_what_it_is(
    world: ProviderWorld, tokens: Rotated, step: Step, answer: Answer
) -> None:
    world.sandbox.faults.add(step, grant_type="refresh_token")

    result = await world.provider.present(refresh(tokens), window())

    assert result.answer == answer
    assert result.sent_at is not None


async def test_an_answer_without_a_refresh_token_leaves_the_presented_one(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.faults.add(Alter(omit=("refresh_token",)))

    rotated = honoured(await provider.present(refresh(tokens), window()))

    assert rotated.refresh_token is None
    assert rotated.flags == ("no_refresh_token",)


async def test_silence_is_unknown_when_the_window_ends(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.faults.add(Hang())

    result = await provider.present(refresh(tokens), window(answer=0.05))

    assert result.answer == Unknown(code="read_timeout")
    await sandbox.until(hung_up=1)
    assert sandbox.record.counts().rotations == 1


async def test_a_held_answer_is_waited_for(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.faults.add(Hold(when="after"))

    async with asyncio.TaskGroup() as group:
        call = group.create_task(provider.present(refresh(tokens), window()), name="call")
        await sandbox.until(held=1)
        assert not call.done()
        sandbox.release()

    assert isinstance(call.result().answer, Rotated)


async def test_a_request_whose_client_went_is_processed_all_the_same(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.faults.add(Hold(when="before"))

    async with asyncio.TaskGroup() as group:
        call = group.create_task(provider.present(refresh(tokens), window()), name="call")
        await sandbox.until(held=1)
        call.cancel()
        await sandbox.until(hung_up=1)
        sandbox.release()
        await sandbox.until(finished=2)

    assert sandbox.record.counts().rotations == 1
    assert sandbox.record.presentations[-1].is_delivered is False


async def test_after_the_window_to_send_nothing_is_sent(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    told: list[str] = []
    closed = window(send=-1, on_sending=lambda: told.append("sending"))

    result = await provider.present(refresh(tokens), closed)

    assert isinstance(result.answer, NotProcessed)
    assert result.sent_at is None
    assert told == []
    assert sandbox.record.counts().presentations == 0


async def test_sending_is_told_before_the_token_is_shown(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    shown_before: list[int] = []

    def note() -> None:
        shown_before.append(sandbox.record.counts().presentations)

    await provider.present(refresh(tokens), window(on_sending=note))

    assert shown_before == [0]
    assert sandbox.record.counts().presentations == 1


async def test_an_access_token_tells_its_company_and_scopes(
    provider: Provider, tokens: Rotated
) -> None:
    assert await provider.introspect(access(tokens)) == Introspection(
        is_live=True, subject=ACME, scopes=ASKED.scopes
    )


async def test_an_unknown_access_token_is_dead(provider: Provider) -> None:
    assert await provider.introspect(UNHEARD_OF) == Introspection(is_live=False)


@pytest.mark.parametrize("step", [fail(503), rubbish(), Drop(), Half(), rate_limit()])
async def test_no_readable_introspection_says_nothing(
    world: ProviderWorld, tokens: Rotated, step: Step
) -> None:
    world.sandbox.faults.add(step, endpoint="api")

    assert await world.provider.introspect(access(tokens)) == Introspection(is_live=None)


async def test_a_deleted_installation_ends_the_grant(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    await provider.delete_installation(access(tokens))

    result = await provider.present(refresh(tokens), window())
    assert result.answer == Refused(error="invalid_grant")


async def test_an_installation_that_was_gone_is_deleted(
    provider: Provider, sandbox: Sandbox, tokens: Rotated
) -> None:
    sandbox.faults.add(fail(404), endpoint="api")

    await provider.delete_installation(access(tokens))


@pytest.mark.parametrize(("step", "code"), [(fail(503), "http_503"), (rate_limit(), "http_429")])
async def test_a_deletion_that_is_not_confirmed_is_an_error(
    world: ProviderWorld, tokens: Rotated, step: Step, code: str
) -> None:
    world.sandbox.faults.add(step, endpoint="api")

    with pytest.raises(ProviderUnavailable) as raised:
        await world.provider.delete_installation(access(tokens))

    assert raised.value.metadata["code"] == code


@pytest.mark.parametrize(
    ("step", "code"),
    [(Drop(), "connection_lost"), (fail(502), "http_502"), (fail(504), "http_504")],
)
async def test_a_deletion_without_an_answer_may_be_done_yet(
    world: ProviderWorld, tokens: Rotated, step: Step, code: str
) -> None:
    world.sandbox.faults.add(step, endpoint="api")

    with pytest.raises(RefreshOutcomeUnknown) as raised:
        await world.provider.delete_installation(access(tokens))

    assert raised.value.metadata["code"] == code


async def test_a_dead_token_deletes_nothing(provider: Provider) -> None:
    with pytest.raises(ProviderUnavailable) as raised:
        await provider.delete_installation(UNHEARD_OF)

    assert raised.value.metadata["code"] == "http_401"
