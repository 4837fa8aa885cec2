"""The "Connect to Pleo" example before a fleet's broker, and browsers that know nothing but pages.

No port is opened: a browser's requests go straight into the application, as of the address that it
would have. What is at Pleo is walked over HTTP.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Final

import grpc.aio
import httpx

from broker.sandbox.visitor import walk_consent
from broker.v1.grant_service_pb2_grpc import GrantServiceStub
from deploy.examples.connect.reconnects import Reconnects
from deploy.examples.connect.site import Site, application
from support.fleet import PATIENCE_SECONDS, Fleet
from support.law_seven import LEDGER
from support.onboarding import Customer
from support.sandbox_client import parameters_of

LOOPBACK: Final = "http://127.0.0.1:8400"
"""Among the sandbox's redirect URIs, with /callback after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a browser was shown."""

    status: int
    html: str = field(repr=False)

    @property
    def title(self) -> str:
        """The heading."""
        return "".join(re.findall(r"<h1>(.*?)</h1>", self.html))

    @property
    def text(self) -> str:
        """What a person reads."""
        body = self.html.partition("<body>")[2]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


@dataclass(slots=True, kw_only=True)
class Browser:
    """One person's, with its own cookies."""

    http: httpx.AsyncClient
    site: Site
    pleo: httpx.AsyncClient
    came_back_to: str = field(default="", repr=False)
    """The address of the last callback."""

    async def sent(self, tenant: str, **form: str) -> httpx.Response:
        """Sends the form of the front page."""
        return await self.http.post(
            "/connect", data={"tenant": tenant, **form}, headers={"Origin": self.site.url}
        )

    async def walked(self, sent: httpx.Response, *, company: str, is_approved: bool = True) -> str:
        """Goes where it was sent, decides there, and returns where Pleo sends it."""
        location = await walk_consent(
            self.pleo, sent.headers["Location"], company=company, is_approved=is_approved
        )
        LEDGER.note("state", parameters_of(location)["state"])
        self.came_back_to = location
        return location

    async def connects(self, customer: Customer, *, is_approved: bool = True, **form: str) -> Page:
        """Goes the whole way."""
        sent = await self.sent(customer.tenant, **form)
        await self.walked(sent, company=customer.company, is_approved=is_approved)
        return await self.reloads()

    async def reloads(self) -> Page:
        """Opens the address of the last callback (again)."""
        return await self.opens(self.came_back_to)

    async def opens(self, address: str) -> Page:
        """Opens a page."""
        return page_of(await self.http.get(address))


def page_of(answer: httpx.Response) -> Page:
    """Returns what an answer shows."""
    return Page(status=answer.status_code, html=answer.text)


@asynccontextmanager
async def site_before(target: str, *, url: str = LOOPBACK) -> AsyncIterator[Site]:
    """Gives the site over a broker's address; nothing polls but who is told to."""
    async with grpc.aio.insecure_channel(target) as channel:
        grants = GrantServiceStub(channel)
        yield Site(url=url, grants=grants, reconnects=Reconnects(grants=grants))


@asynccontextmanager
async def browser_of(site: Site, brokers: Fleet) -> AsyncIterator[Browser]:
    """Gives a browser without cookies."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application(site)),
        base_url=site.url,
        timeout=PATIENCE_SECONDS,
    ) as http:
        yield Browser(http=http, site=site, pleo=brokers.http)
