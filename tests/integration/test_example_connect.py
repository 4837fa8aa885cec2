"""The "Connect to Pleo" example: each thing that a customer may meet on the way there and back."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from deploy.examples.connect.site import Site, application, binding_of
from support.cli import own_environ
from support.fleet import Fleet, fleet_of_a_module, until_true
from support.onboarding import (
    Customer,
    connect,
    execute,
    expire,
    get,
    grant_of,
    new_company,
    new_customer,
)
from support.replica import Replica
from support.rpc import failure_of
from support.source import ROOT
from support.web_tier import LOOPBACK, Browser, browser_of, page_of, site_before

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLIC = "https://app.example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(
    database_server: str, migrated_template: str, redis_server: str, run: RunDirectory
) -> AsyncIterator[Fleet]:
    """One broker, which also knows a public web tier."""
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        uris = f"{LOOPBACK}/callback {PUBLIC}/callback"
        await brokers.start(BROKER_PLEO_REDIRECT_URIS=uris)
        yield brokers


@pytest.fixture
def replica(one: Fleet) -> Replica:
    """The broker."""
    return one.replicas[0]


@pytest.fixture
def customer(one: Fleet) -> Customer:
    """A customer that nothing is known of yet."""
    return new_customer(one.sandbox)


@pytest_asyncio.fixture(loop_scope="module")
async def site(one: Fleet, replica: Replica) -> AsyncIterator[Site]:
    """The example before that broker."""
    async with site_before(replica.target) as site:
        yield site
    one.tell()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(site: Site, one: Fleet) -> AsyncIterator[Browser]:
    """The customer's."""
    async with browser_of(site, one) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def other_browser(site: Site, one: Fleet) -> AsyncIterator[Browser]:
    """Somebody else's."""
    async with browser_of(site, one) as browser:
        yield browser


def exchanges(brokers: Fleet, customer: Customer) -> int:
    return brokers.sandbox.record.counts(customer.company).exchanges


async def leave(brokers: Fleet, customer: Customer) -> None:
    """Disconnects a company in Pleo, and lets the broker find out."""
    first = brokers.replicas[0]
    await expire(brokers, customer.tenant, known_to=first)
    brokers.sandbox.server.disconnect(company=customer.company)
    assert (await failure_of(get(first.tokens, customer.tenant))).code.name == "FAILED_PRECONDITION"


async def test_a_customer_who_consents_is_connected(
    replica: Replica, customer: Customer, browser: Browser
) -> None:
    page = await browser.connects(customer)

    assert (page.status, page.title) == (200, "Connected")
    assert customer.tenant in page.text
    assert customer.company in page.text
    assert "export-items:read" in page.text
    assert (await grant_of(replica, customer.tenant)).subject == customer.company


async def test_a_reloaded_callback_shows_the_same_and_exchanges_nothing(
    one: Fleet, customer: Customer, browser: Browser
) -> None:
    shown = await browser.connects(customer)

    again = [await browser.reloads() for _ in range(3)]

    assert again == [shown] * 3
    assert exchanges(one, customer) == 1


async def test_a_customer_who_says_no_is_told_and_may_start_again(
    one: Fleet, customer: Customer, browser: Browser
) -> None:
    page = await browser.connects(customer, is_approved=False)

    assert (page.status, page.title) == (400, "Not connected")
    assert "access_denied" in page.text
    assert f'name="tenant" value="{customer.tenant}"' in page.html
    assert exchanges(one, customer) == 0
    assert (await browser.connects(customer)).title == "Connected"


async def test_a_customer_who_takes_too_long_starts_again(
    one: Fleet, customer: Customer, browser: Browser
) -> None:
    sent = await browser.sent(customer.tenant)
    await browser.walked(sent, company=customer.company)
    over = "UPDATE authorizations SET expires_at = clock_timestamp() WHERE tenant = $1"
    await execute(one.database_url, over, customer.tenant)

    page = await browser.reloads()

    assert (page.status, page.title) == (400, "Please start again")
    assert exchanges(one, customer) == 0


async def test_another_company_is_named_and_changes_nothing(
    one: Fleet, replica: Replica, customer: Customer, browser: Browser
) -> None:
    await browser.connects(customer)
    other = replace(customer, company=new_company(one.sandbox))

    page = await browser.connects(other)

    assert (page.status, page.title) == (409, "Another company than before")
    assert other.company in page.text
    assert customer.company in page.text
    assert 'name="other_company"' in page.html
    assert (await grant_of(replica, customer.tenant)).subject == customer.company


async def test_a_customer_may_change_the_company_on_purpose(
    one: Fleet, replica: Replica, customer: Customer, browser: Browser
) -> None:
    await browser.connects(customer)
    other = replace(customer, company=new_company(one.sandbox))

    page = await browser.connects(other, other_company="yes")

    assert page.title == "Connected"
    assert (await grant_of(replica, customer.tenant)).subject == other.company


async def test_a_company_of_another_account_is_refused(
    customer: Customer, browser: Browser
) -> None:
    await browser.connects(customer)
    latecomer = replace(customer, tenant=f"{customer.tenant}-2")

    page = await browser.connects(latecomer)

    assert (page.status, page.title) == (409, "This company is connected already")
    assert customer.company in page.text


async def test_who_must_reconnect_is_listed_until_they_have(
    one: Fleet, site: Site, customer: Customer, browser: Browser
) -> None:
    await browser.connects(customer)
    await site.reconnects.poll()
    before = await browser.opens("/")
    await leave(one, customer)
    await site.reconnects.poll()

    listed = await browser.opens("/")
    page = await browser.connects(customer)
    after = await browser.opens("/")
    await site.reconnects.poll()

    assert customer.tenant not in before.text
    assert f"{customer.tenant} expired, or disconnected in Pleo" in listed.text
    assert page.title == "Connected"
    assert after.text == (await browser.opens("/")).text
    assert customer.tenant not in after.text


async def test_a_reconnect_that_happened_elsewhere_is_learnt_by_polling(
    one: Fleet, site: Site, replica: Replica, customer: Customer
) -> None:
    await connect(one, replica, customer)
    await leave(one, customer)
    await site.reconnects.poll()
    assert customer.tenant in site.reconnects.waiting

    await connect(one, replica, customer)
    await site.reconnects.poll()

    assert customer.tenant not in site.reconnects.waiting


async def test_the_list_is_polled_while_the_site_runs(
    one: Fleet, site: Site, replica: Replica, customer: Customer
) -> None:
    await connect(one, replica, customer)
    await leave(one, customer)
    running = application(site)

    async def is_listed() -> bool:
        return customer.tenant in site.reconnects.waiting and site.reconnects.is_current

    async with running.router.lifespan_context(running):
        await until_true(is_listed)


async def test_a_consent_that_somebody_else_started_connects_nobody(
    one: Fleet, replica: Replica, customer: Customer, browser: Browser, other_browser: Browser
) -> None:
    sent = await other_browser.sent(customer.tenant)
    location = await browser.walked(sent, company=customer.company)

    page = await browser.opens(location)

    assert (page.status, page.title) == (400, "Please start again")
    assert exchanges(one, customer) == 0
    missing = await failure_of(grant_of(replica, customer.tenant))
    assert missing.error_info.reason == "TENANT_NOT_FOUND"


async def test_a_tenant_cookie_without_the_browsers_own_is_worth_nothing(
    one: Fleet, customer: Customer, browser: Browser, other_browser: Browser
) -> None:
    sent = await other_browser.sent(customer.tenant)
    await browser.walked(sent, company=customer.company)
    for name, value in other_browser.http.cookies.items():
        browser.http.cookies.set(name, secrets.token_urlsafe(32) if name == "browser" else value)

    page = await browser.reloads()

    assert page.title == "Please start again"
    assert exchanges(one, customer) == 0


@pytest.mark.parametrize("headers", [{}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9"}])
async def test_the_form_of_another_site_starts_nothing(
    browser: Browser, headers: dict[str, str]
) -> None:
    answer = await browser.http.post("/connect", data={"tenant": "acme"}, headers=headers)

    assert (page_of(answer).status, page_of(answer).title) == (403, "Not from here")
    assert not answer.cookies


@pytest.mark.parametrize(("url", "is_secure"), [(LOOPBACK, False), (PUBLIC, True)])
async def test_cookies_are_for_this_site_and_no_script(
    one: Fleet, replica: Replica, url: str, *, is_secure: bool
) -> None:
    async with site_before(replica.target, url=url) as site, browser_of(site, one) as browser:
        sent = await browser.sent("acme")

    cookies = sent.headers.get_list("Set-Cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        assert ("Secure" in cookie.split("; ")) is is_secure
    assert cookies[0].startswith("__Host-browser=" if is_secure else "browser=")


async def test_a_browser_keeps_its_cookie_and_each_window_its_account(
    one: Fleet, customer: Customer, browser: Browser
) -> None:
    second = new_customer(one.sandbox)
    sent, also_sent = await browser.sent(customer.tenant), await browser.sent(second.tenant)

    shown = [
        await browser.opens(await browser.walked(each, company=of.company))
        for each, of in ((also_sent, second), (sent, customer))
    ]

    assert [page.title for page in shown] == ["Connected"] * 2
    assert second.tenant in shown[0].text
    assert customer.tenant in shown[1].text
    assert sent.cookies["browser"] == also_sent.cookies["browser"]


async def test_the_broker_is_given_a_hash_of_the_cookie() -> None:
    assert len(binding_of("a-cookie")) == 32
    assert b"a-cookie" not in binding_of("a-cookie")
    assert binding_of("a-cookie") != binding_of("another")


async def test_what_others_say_is_escaped(customer: Customer, browser: Browser) -> None:
    sent = await browser.sent(customer.tenant)
    state = httpx.URL(sent.headers["Location"]).params["state"]

    answer = await browser.http.get(
        "/callback", params={"state": state, "error": "<script>alert(1)</script>"}
    )

    assert "<script" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_name_that_is_no_tenants_is_told(browser: Browser) -> None:
    page = page_of(await browser.sent('"><b>'))

    assert (page.status, page.title) == (400, "That is no account")
    assert "<b>" not in page.html


async def test_a_broker_that_is_away_is_a_matter_of_waiting(one: Fleet) -> None:
    async with (
        site_before("127.0.0.1:9") as site,
        browser_of(site, one) as browser,
    ):
        page = page_of(await browser.sent("acme"))

        shown = await browser.opens("/")

    assert (page.status, page.title) == (503, "One moment, please")
    assert "The list may be old" in shown.text


async def test_another_name_of_the_same_machine_is_sent_to_the_right_one(
    browser: Browser,
) -> None:
    answer = await browser.http.get("http://localhost:8400/")

    assert (answer.status_code, answer.headers["Location"]) == (307, LOOPBACK)


async def test_the_printed_command_serves_the_page(one: Fleet, replica: Replica) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ["-m", "deploy.examples.connect", "--broker", replica.target, "--url", url]
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env=own_environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert started.stdout is not None
    said = (await started.stdout.readline()).decode()

    async def is_shown() -> bool:
        try:
            return "Connect to Pleo" in (await one.http.get(url)).text
        except httpx.ConnectError:
            return False

    await until_true(is_shown)
    started.terminate()
    _, complained = await started.communicate()
    assert (said.split("  ")[0], complained) == (f"Connect to Pleo: {url}/", b"")
