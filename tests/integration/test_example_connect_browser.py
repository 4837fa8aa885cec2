"""The "Connect to Pleo" example in a real browser: each way there and back, by clicks alone.

What test_example_connect.py does without one. With SCREENSHOTS=FOLDER each page that a test looks
at is kept there as a picture.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.sandbox.settings import DEMO_CLIENT
from support.chromium import Tab, Wire, chromium, found_chromium, tab_of
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
from support.rpc import failure_of
from support.source import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHONE = 360
"""Pixels across: as narrow as phones are."""

TOO_LATE = "UPDATE authorizations SET expires_at = clock_timestamp() WHERE tenant = $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The example as its page tells to start it."""

    url: str
    brokers: Fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(run: RunDirectory) -> AsyncIterator[Wire]:
    """A Chromium."""
    async with chromium(run) as wire:
        yield wire


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    browser: Wire,
    database_server: str,
    migrated_template: str,
    redis_server: str,
    run: RunDirectory,
) -> AsyncIterator[Site]:
    """The example before one broker."""
    url = f"http://127.0.0.1:{free_port()}"
    stores = (database_server, migrated_template, redis_server)
    async with fleet_of_a_module(*stores, run=run) as brokers:
        registered = replace(DEMO_CLIENT, redirect_uris=(f"{url}/callback",))
        brokers.sandbox.server.realm.add_client(registered)
        replica = await brokers.started(BROKER_PLEO_REDIRECT_URIS=f"{url}/callback")
        arguments = ["-m", "deploy.examples.connect", "--broker", replica.target, "--url", url]
        started = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, env=own_environ(), stdout=subprocess.PIPE
        )
        run.started(started.pid)
        try:
            assert started.stdout is not None
            assert b"Connect to Pleo" in await started.stdout.readline()
            yield Site(url=url, brokers=brokers)
        finally:
            started.terminate()
            await started.communicate()


@pytest_asyncio.fixture(loop_scope="module")
async def person(browser: Wire, site: Site) -> Tab:
    """Somebody with a browser of their own, on the front page."""
    return await visitor(browser, site)


@pytest.fixture
def customer(site: Site) -> Customer:
    """A customer that nothing is known of yet."""
    return new_customer(site.brokers.sandbox)


async def visitor(browser: Wire, site: Site) -> Tab:
    tab = await tab_of(browser)
    await tab.is_as_wide_as(PHONE)
    # Printed is not yet listening.
    await until_true(lambda: is_shown(tab, site))
    return tab


async def is_shown(tab: Tab, site: Site) -> bool:
    await tab.opens(site.url)
    return bool(await tab.says("document.title === 'Connect to Pleo'"))


async def goes_to_pleo(person: Tab, customer: Customer) -> None:
    await person.types(customer.tenant, into="tenant")
    await person.clicks("Connect to Pleo")


async def decides(person: Tab, company: str, *, allows: bool = True) -> None:
    await person.clicks(company, leads_on=False)
    await person.clicks("Allow" if allows else "Deny")


async def sees(person: Tab, heading: str, request: pytest.FixtureRequest) -> str:
    """Looks at a page: what it is called, whether it fits on a phone; returns what it says."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        number = len(list(Path(folder).iterdir()))
        await person.draws(Path(folder) / f"{number:02}-{request.node.name}.png")
    assert await person.heading() == heading
    assert await person.says("document.documentElement.scrollWidth") <= PHONE
    return await person.text()


async def test_a_customer_clicks_through_and_is_connected(
    person: Tab, customer: Customer, site: Site, request: pytest.FixtureRequest
) -> None:
    await sees(person, "Connect to Pleo", request)
    await goes_to_pleo(person, customer)
    await decides(person, customer.company)

    shown = await sees(person, "Connected", request)
    await person.reloads()

    assert customer.tenant in shown
    assert customer.company in shown
    assert await person.text() == shown
    assert site.brokers.sandbox.record.counts(customer.company).exchanges == 1


async def test_no_script_can_read_what_binds_the_browser(person: Tab, customer: Customer) -> None:
    await goes_to_pleo(person, customer)
    await decides(person, customer.company)

    assert await person.says("document.cookie") == ""


async def test_a_customer_who_says_no_starts_again_with_a_click(
    person: Tab, customer: Customer, request: pytest.FixtureRequest
) -> None:
    await goes_to_pleo(person, customer)
    await decides(person, customer.company, allows=False)

    await sees(person, "Not connected", request)
    await person.clicks("Start again")
    await decides(person, customer.company)

    assert await person.heading() == "Connected"


async def test_a_customer_who_took_too_long_starts_again_with_a_click(
    person: Tab, customer: Customer, site: Site, request: pytest.FixtureRequest
) -> None:
    await goes_to_pleo(person, customer)
    await execute(site.brokers.database_url, TOO_LATE, customer.tenant)
    await decides(person, customer.company)

    await sees(person, "Please start again", request)
    await person.clicks("Start again")
    await decides(person, customer.company)

    assert await person.heading() == "Connected"


async def test_another_company_is_changed_to_by_a_click_of_its_own(
    person: Tab, customer: Customer, site: Site, request: pytest.FixtureRequest
) -> None:
    (replica, *_), other = site.brokers.replicas, new_company(site.brokers.sandbox)
    await connect(site.brokers, replica, customer)
    await goes_to_pleo(person, customer)
    await decides(person, other)

    shown = await sees(person, "Another company than before", request)
    before = (await grant_of(replica, customer.tenant)).subject
    await person.clicks("Move to the new company")
    await decides(person, other)

    assert (other in shown, customer.company in shown) == (True, True)
    assert before == customer.company
    assert await person.heading() == "Connected"
    assert (await grant_of(replica, customer.tenant)).subject == other


async def test_a_customer_who_left_is_listed_and_reconnects_there(
    person: Tab, customer: Customer, site: Site, request: pytest.FixtureRequest
) -> None:
    await left(site.brokers, customer)

    async def is_listed() -> bool:
        await person.reloads()
        return customer.tenant in await person.text()

    await until_true(is_listed)
    listed = await sees(person, "Connect to Pleo", request)
    await person.clicks("Reconnect")
    await decides(person, customer.company)
    heading = await person.heading()
    await person.clicks("Back to all accounts")

    assert f"{customer.tenant} expired, or disconnected in Pleo" in listed
    assert heading == "Connected"
    assert customer.tenant not in await sees(person, "Connect to Pleo", request)


async def left(brokers: Fleet, customer: Customer) -> None:
    """Connects a customer, who then disconnects in Pleo, which the broker finds out."""
    (replica, *_) = brokers.replicas
    await connect(brokers, replica, customer)
    await expire(brokers, customer.tenant, known_to=replica)
    brokers.sandbox.server.disconnect(company=customer.company)
    assert (
        await failure_of(get(replica.tokens, customer.tenant))
    ).code.name == "FAILED_PRECONDITION"


async def test_a_consent_link_of_somebody_else_connects_nobody(
    browser: Wire, person: Tab, customer: Customer, site: Site, request: pytest.FixtureRequest
) -> None:
    victim = await visitor(browser, site)
    await goes_to_pleo(person, customer)
    await victim.opens(await person.address())
    await decides(victim, customer.company)

    await sees(victim, "Please start again", request)

    assert site.brokers.sandbox.record.counts(customer.company).exchanges == 0


async def test_a_machine_without_a_browser_skips_with_a_word() -> None:
    with pytest.raises(pytest.skip.Exception, match="there is no Chromium on this machine"):
        found_chromium(path="/nowhere")
