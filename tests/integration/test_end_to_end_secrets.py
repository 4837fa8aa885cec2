"""After all that a grant may go through, no secret lies in clear anywhere (law 7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
import redis.asyncio

from broker.sandbox.faults import refuse, rubbish
from broker.sandbox.settings import DEMO_CLIENT
from support.fleet import Fleet
from support.leaks import (
    Heard,
    database_text,
    leaks,
    named,
    overhearing,
    valkey_text,
)
from support.onboarding import (
    Customer,
    Returned,
    complete,
    execute,
    expire,
    get,
    new_customer,
    revoke,
    take_over,
    tokens_of,
    visit,
)
from support.replica import Replica
from support.rpc import Failure, failure_of

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("two")]

A_SECRET = "a-secret-that-pleo-does-not-know"
A_CODE = "a-code-that-was-never-issued"
PLANTED = "a/planted+secret="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(brokers: Fleet) -> Fleet:
    """Two brokers, and one with a wrong client secret, whose event loop tells what it runs."""
    await brokers.start(BROKER_PLEO_CLIENT_SECRET=A_SECRET, PYTHONASYNCIODEBUG="1")
    return brokers


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """All that grants may go through, and what was told of it."""

    brokers: Fleet
    heard: Heard
    visits: list[Returned] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def customer(self) -> Customer:
        return new_customer(self.brokers.sandbox)

    async def visited(self, customer: Customer, *, is_approved: bool = True) -> Returned:
        first = self.brokers.replicas[0]
        returned = await visit(self.brokers, first, customer, is_approved=is_approved)
        self.visits.append(returned)
        return returned

    async def connected(self, replica: Replica) -> Customer:
        customer = self.customer()
        await complete(replica, await self.visited(customer))
        return customer

    async def fails(self, call: Awaitable[object]) -> None:
        self.failures.append(await failure_of(call))

    async def consents(self) -> None:
        first, second, wrong = self.brokers.replicas
        customer = self.customer()
        returned = await self.visited(customer)
        await complete(first, returned)
        await complete(second, returned)
        await self.fails(complete(second, returned.with_code(A_CODE)))
        await self.fails(complete(first, (await self.visited(customer)).with_code(A_CODE)))
        spied_on = await self.visited(customer)
        await self.fails(complete(second, replace(spied_on, binding=b"another session's")))
        await self.fails(complete(first, await self.visited(customer, is_approved=False)))
        await self.fails(complete(wrong, await self.visited(customer)))
        self.brokers.sandbox.faults.add(rubbish(), grant_type="authorization_code")
        await self.fails(complete(first, await self.visited(customer)))

    async def refreshes(self) -> None:
        first, second, wrong = self.brokers.replicas
        customer = await self.connected(first)
        await expire(self.brokers, customer.tenant, known_to=first)
        await get(second.tokens, customer.tenant)
        self.brokers.sandbox.server.disconnect(company=customer.company)
        await expire(self.brokers, customer.tenant, known_to=second)
        await self.fails(get(first.tokens, customer.tenant))
        for fault, replica in ((rubbish(), first), (None, wrong)):
            customer = await self.connected(first)
            await expire(self.brokers, customer.tenant, known_to=first)
            if fault is not None:
                self.brokers.sandbox.faults.add(fault, company=customer.company)
            await self.fails(get(replica.tokens, customer.tenant))

    async def imports(self) -> None:
        first, second, _ = self.brokers.replicas
        for is_living in (False, True):
            customer = self.customer()
            tokens = await tokens_of(self.brokers.sandbox, customer.company)
            await take_over(first, customer.tenant, tokens, is_living=is_living)
            await get(second.tokens, customer.tenant)
            await revoke(first, customer.tenant)
        refused = self.customer()
        tokens = await tokens_of(self.brokers.sandbox, refused.company)
        self.brokers.sandbox.faults.add(refuse("invalid_grant"), company=refused.company)
        await self.fails(take_over(first, refused.tenant, tokens))

    async def places(self) -> dict[str, str]:
        """Returns all that was written and said anywhere."""
        brokers, texts = self.brokers, await database_text(self.brokers.database_url)
        texts |= {
            "Valkey": await valkey_text(brokers.redis_url),
            "what Valkey was asked": self.heard.text,
            "statuses": "\n".join(map(str, self.failures)),
        }
        for replica in brokers.replicas:
            texts[f"the log of {replica.name}"] = replica.said
            for path in ("/metrics", "/readyz?verbose", "/statusz"):
                texts[f"{path} of {replica.name}"] = (await brokers.asked(replica, path)).text
        return texts

    def secrets(self) -> dict[str, str]:
        """Returns all that must not be seen, by its value."""
        issued = {kept.value: kept.kind for kept in self.brokers.sandbox.server.realm.mint.kept}
        client = (DEMO_CLIENT.client_id, DEMO_CLIENT.client_secret)
        return (
            issued
            | named("state", (each.state for each in self.visits))
            | named("binding", (each.binding.hex() for each in self.visits))
            | named("code", [A_CODE])
            | named("client_secret", [A_SECRET, ":".join(client)])
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def life(brokers: Fleet) -> AsyncIterator[Life]:
    """A whole one."""
    async with overhearing(brokers.redis_url) as heard:
        life = Life(brokers=brokers, heard=heard)
        await life.consents()
        await life.refreshes()
        await life.imports()
        yield life


async def test_no_secret_lies_in_clear_anywhere(life: Life) -> None:
    places, secrets = await life.places(), life.secrets()

    assert leaks(places, secrets) == []
    kinds = {"access_token", "refresh_token", "code", "code_verifier", "client_secret"}
    assert set(secrets.values()) == kinds | {"state", "binding"}
    for place in ("grants", "refresh_attempts", "what Valkey was asked", "the log of broker-1"):
        assert life.visits[0].tenant in places[place]


async def test_the_failures_were_those_that_were_meant(life: Life) -> None:
    assert [each.error_info.reason for each in life.failures] == [
        "AUTHORIZATION_STATE_INVALID",
        "CODE_REJECTED",
        "AUTHORIZATION_STATE_INVALID",
        "CONSENT_DENIED",
        "PROVIDER_REJECTED_CLIENT",
        "EXCHANGE_OUTCOME_UNKNOWN",
        "REAUTH_REQUIRED",
        "REFRESH_OUTCOME_UNKNOWN",
        "PROVIDER_REJECTED_CLIENT",
        "REFRESH_TOKEN_REJECTED",
    ]


PLANT = {
    "grant_events": """
        INSERT INTO grant_events (tenant, actor, call, reason, state_before, state_after,
        generation) VALUES ('planted', '', '', $1, '', '', 1)
    """,
    "imports": """
        INSERT INTO imports (tenant, fingerprint, outcome, presentations, error)
        VALUES ('planted', convert_to($1, 'UTF8'), 'REFUSED', 1, '')
    """,
}


@pytest.mark.parametrize("where", PLANT)
async def test_a_secret_in_the_database_is_found(life: Life, where: str) -> None:
    await execute(life.brokers.database_url, PLANT[where], PLANTED)

    assert f"planted in {where}" in leaks(await life.places(), {PLANTED: "planted"})


@pytest.mark.parametrize("where", ["Valkey", "what Valkey was asked"])
async def test_a_secret_in_valkey_is_found(life: Life, where: str) -> None:
    async with redis.asyncio.from_url(life.brokers.redis_url) as client:
        await client.hset("planted", mapping={"held": PLANTED})

    assert f"planted in {where}" in leaks(await life.places(), {PLANTED: "planted"})


@pytest.mark.parametrize("text", ["a%2Bb%2Fc%3D", "x612b622f633dx", "YStiL2M9"])
async def test_a_secret_is_found_in_whatever_form(text: str) -> None:
    assert leaks({"here": text}, {"a+b/c=": "code"}) == ["code in here"]
