"""What a browser sees: the page that says what this is, and the consent page with its form.

Translates between HTTP and the authorization server; the HTML itself is in `pages`.
"""

from __future__ import annotations

from typing import Final, assert_never
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from broker.sandbox.consents import AuthorizationRequest, ErrorPage, Redirect
from broker.sandbox.pages import consent_page, error_page, front_page
from broker.sandbox.sandbox import Sandbox

# No script runs, nothing is loaded, nobody frames it. `form-action` is left out on purpose:
# Chromium applies it to the redirect that follows the form, which goes to the client.
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


class FrontDoor:
    """What a browser sees."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Show `sandbox`."""
        self._sandbox = sandbox

    async def home(self, _request: Request) -> Response:
        """Say what this is."""
        realm = self._sandbox.server.realm
        page = front_page(
            self._sandbox.url,
            clients=realm.clients.values(),
            companies=realm.companies.values(),
            counts=self._sandbox.record.counts(),
        )
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def show(self, request: Request) -> Response:
        """Show the consent page, or send the browser on, or say why not."""
        return self._page(self._sandbox.server.begin_authorization(request.url.query))

    async def decide(self, request: Request) -> Response:
        """Take the form. 303, so that the browser goes on with GET."""
        form = parse_qs((await request.body()).decode(errors="replace"))
        ending = self._sandbox.server.decide_authorization(
            form.get("request", [""])[0],
            company=form.get("company", [""])[0],
            is_approved=form.get("decision") == ["allow"],
            now=self._sandbox.now(),
        )
        return self._page(ending)

    def _page(self, shown: AuthorizationRequest | Redirect | ErrorPage) -> Response:
        match shown:
            case AuthorizationRequest():
                page = consent_page(shown, self._sandbox.server.realm.companies.values())
                return HTMLResponse(page, headers=_PAGE_HEADERS)
            case Redirect(location=location):
                return RedirectResponse(location, status_code=303, headers=_PAGE_HEADERS)
            case ErrorPage(reason=reason):
                return HTMLResponse(error_page(reason), status_code=400, headers=_PAGE_HEADERS)
            case never:
                assert_never(never)
