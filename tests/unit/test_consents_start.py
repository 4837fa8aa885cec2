"""StartAuthorization: what the browser carries, what stays here, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.chance import SystemChance
from broker.domain.authorization import Authorization
from broker.domain.errors import InvalidRequest, KeyUnavailable, StoreUnavailable
from broker.domain.hashing import sha256
from broker.domain.oauth import s256_challenge
from broker.service.messages import StartAuthorization, StartedAuthorization
from support.consent_service import BINDING, REGISTRATION, SCOPES, WEB, Desk, desk
from support.service import Fleet, fleet, virtual_now
from support.virtual_time import in_virtual_time


def asked(started: StartedAuthorization) -> dict[str, str]:
    """Returns the parameters that the browser carries to Pleo."""
    query = parse_qs(urlsplit(started.authorization_uri).query, strict_parsing=True)
    return {name: value for name, (value,) in query.items()}


def only_authorization(ours: Fleet) -> bytes:
    (state_hash,) = ours.world.authorizations
    return state_hash


@in_virtual_time
async def test_the_browser_carries_the_challenge_of_a_verifier_that_stays() -> None:
    async with fleet() as ours:
        started = await desk(ours).start()

        kept = ours.world.authorizations[sha256(started.state)].code_verifier
        assert kept is not None
        assert len(kept.reveal()) == 43
        assert asked(started)["code_challenge"] == s256_challenge(kept)
        assert asked(started)["code_challenge_method"] == "S256"
        assert kept.reveal() not in started.authorization_uri


@in_virtual_time
async def test_secrets_of_the_system_are_as_long_and_never_the_same() -> None:
    """RFC 7636 §4.1: 256 bits make 43 characters."""
    async with fleet() as ours:
        one = desk(ours)
        starting = replace(one.service.broker.starting, chance=SystemChance())
        request = StartAuthorization(tenant="acme", caller=WEB, session_binding=BINDING)

        first, second = await starting.start(request), await starting.start(request)

        assert len(first.state) == len(second.state) == 43
        secrets = {row.code_verifier and row.code_verifier.reveal() for row in rows(ours)}
        assert len({first.state, second.state} | secrets) == 4


def rows(ours: Fleet) -> list[Authorization]:
    return list(ours.world.authorizations.values())


@in_virtual_time
async def test_the_state_and_the_binding_are_stored_as_hashes() -> None:
    async with fleet() as ours:
        started = await desk(ours).start()

        (row,) = ours.world.authorizations.values()
        assert only_authorization(ours) == row.state_hash == sha256(started.state)
        assert row.session_binding_hash == sha256(BINDING)
        assert started.state not in repr(row)
        assert BINDING.decode() not in repr(row)


@in_virtual_time
async def test_defaults_are_the_registered_scopes_and_first_address() -> None:
    async with fleet() as ours:
        started = await desk(ours).start()

        assert asked(started)["scope"] == " ".join(SCOPES)
        assert asked(started)["redirect_uri"] == REGISTRATION.redirect_uris[0]
        assert asked(started)["state"] == started.state
        assert started.expires_at == virtual_now() + REGISTRATION.time_to_live


@in_virtual_time
async def test_what_was_asked_for_is_sent_and_remembered() -> None:
    async with fleet() as ours:
        started = await desk(ours).start(
            scopes=("users:read",),
            redirect_uri=REGISTRATION.redirect_uris[1],
            expected_subject="urn:pleo:company:expected",
            allow_subject_change=True,
        )

        row = ours.world.authorizations[sha256(started.state)]
        assert asked(started)["scope"] == "users:read"
        assert asked(started)["redirect_uri"] == row.redirect_uri == REGISTRATION.redirect_uris[1]
        assert (row.tenant, row.caller, row.scopes) == ("acme", WEB, ("users:read",))
        assert row.expected_subject == "urn:pleo:company:expected"
        assert row.allow_subject_change


@pytest.mark.parametrize("end", ["/", "?a=b", "#", "%2e"])
@in_virtual_time
async def test_an_address_that_is_not_registered_exactly_is_refused(end: str) -> None:
    """RFC 9700 §2.1."""
    async with fleet() as ours:
        one = desk(ours)

        with pytest.raises(InvalidRequest) as refused:
            await one.start(redirect_uri=REGISTRATION.redirect_uris[0] + end)

        assert [violation.field for violation in refused.value.violations] == ["redirect_uri"]
        assert ours.world.authorizations == {}


@in_virtual_time
async def test_nothing_is_begun_where_no_address_is_registered() -> None:
    async with fleet() as ours:
        one = desk(ours)
        unregistered = replace(REGISTRATION, redirect_uris=())
        starting = replace(one.service.broker.starting, registration=unregistered)

        with pytest.raises(InvalidRequest):
            await starting.start(
                StartAuthorization(tenant="acme", caller=WEB, session_binding=BINDING)
            )


@pytest.mark.parametrize("method", ["read", "start"])
@in_virtual_time
async def test_without_postgresql_nothing_is_begun(method: str) -> None:
    async with fleet() as ours:
        ours.world.fail_next(method)

        await _fails(desk(ours), StoreUnavailable)


@in_virtual_time
async def test_without_a_key_nothing_is_begun() -> None:
    async with fleet() as ours:
        ours.world.seals = False

        await _fails(desk(ours), KeyUnavailable)


async def _fails(one: Desk, why: type[Exception]) -> None:
    with pytest.raises(why):
        await one.start()
    assert one.fleet.world.authorizations == {}
