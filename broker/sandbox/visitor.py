"""A customer without a browser: walks the consent page as a browser would.

For tests and the demo. Reads the page as it is, so that what it walks is the real thing. Stops at
the redirect to the client, which is the caller's to follow or to read.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final
from urllib.parse import urljoin

import httpx

_ANSWERED: Final = 303


class ConsentNotAskedError(Exception):
    """There was no consent form, but an error page."""


class _Form(HTMLParser):
    """Collects the one form of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.companies: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in the form, its hidden fields and its choices."""
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found.get("action", "")
        elif found.get("type") == "hidden":
            self.fields[found["name"]] = found["value"]
        elif found.get("type") == "radio":
            self.companies.append(found["value"])


async def walk_consent(
    browser: httpx.AsyncClient,
    authorization_uri: str,
    *,
    company: str | None = None,
    is_approved: bool = True,
) -> str:
    """Open the page, choose `company` (the first one if none is named), decide.

    Returns:
        The address that the browser is sent to, with `code` and `state`, or `error` and `state`.

    Raises:
        ConsentNotAskedError: the page is no consent page, or takes no decision.
        httpx.HTTPError: the sandbox cannot be reached.
    """
    page = await browser.get(authorization_uri, follow_redirects=False)
    if page.status_code == _ANSWERED:
        return page.headers["Location"]
    form = _Form()
    form.feed(page.text)
    if form.action is None or not form.companies:
        raise ConsentNotAskedError(f"the page answered {page.status_code} and asks nothing")
    decision = "allow" if is_approved else "deny"
    filled = {**form.fields, "company": company or form.companies[0], "decision": decision}
    target = urljoin(str(page.url), form.action)
    answer = await browser.post(target, data=filled, follow_redirects=False)
    if answer.status_code != _ANSWERED:
        raise ConsentNotAskedError(f"the form answered {answer.status_code}")
    return answer.headers["Location"]
