"""What the authorization server holds: clients, companies, consents, grants, secrets.

Decides who a client is, and makes and ends grants on request. Which request may do so is
`token_rules`. No clock, no I/O.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from http import HTTPStatus
from typing import Final

from broker.sandbox.consents import Consents
from broker.sandbox.grants import Grant, Ledger, Pair
from broker.sandbox.mint import Mint, Randomness
from broker.sandbox.oauth import FormRequest, RefusedError, read_client_credentials
from broker.sandbox.settings import Client, ClientAuthentication, Company, Settings

# Request ids are in a page for a minute; 128 bits are more than anyone guesses.
_REQUEST_ID_LENGTH: Final = 22


class Realm:
    """Everything that there is, and that `reset` makes anew."""

    def __init__(self, settings: Settings, *, randomness: Randomness) -> None:
        """Start with the clients and companies of `settings`, and no grants."""
        self.settings = settings
        self.mint = Mint(randomness)
        self.ledger = Ledger()
        self.clients: dict[str, Client] = {}
        self.companies: dict[str, Company] = {}
        self.consents = Consents(
            new_code=lambda: self.mint.code(self.settings.secret_length),
            new_request_id=lambda: randomness(_REQUEST_ID_LENGTH),
        )
        for client in settings.clients:
            self.add_client(client)
        for company in settings.companies:
            self.add_company(company)

    def add_client(self, client: Client) -> None:
        """Register a client, or change one: its grants stay."""
        self.mint.keep("client_secret", client.client_secret)
        self.clients[client.client_id] = client

    def add_company(self, company: Company) -> None:
        """Add a company that may consent."""
        self.companies[company.urn] = company

    def authenticated(self, request: FormRequest, *, accepts: ClientAuthentication) -> Client:
        """Return the client that a well-formed request comes from.

        Raises:
            RefusedError: `invalid_request`, or `invalid_client` with status 401.
        """
        if request.problem is not None:
            raise RefusedError("invalid_request", request.problem)
        credentials = read_client_credentials(request)
        if accepts not in ("either", credentials.method):
            raise RefusedError(
                "invalid_client",
                f"the secret is accepted here as {accepts} alone",
                status=HTTPStatus.UNAUTHORIZED,
            )
        client = self.clients.get(credentials.client_id)
        if client is None or not hmac.compare_digest(
            client.client_secret.encode(), credentials.client_secret.encode()
        ):
            raise RefusedError(
                "invalid_client", "unknown client, or wrong secret", status=HTTPStatus.UNAUTHORIZED
            )
        return client

    def issue(self, grant: Grant, *, now: datetime, parent: int | None) -> None:
        """Give the grant its next pair; `parent` is the generation that was presented for it."""
        settings = self.settings
        pair = Pair(
            access_token=self.mint.access_token(settings.secret_length),
            refresh_token=self.mint.refresh_token(settings.secret_length),
            access_expires_at=now + settings.access_token_lifetime,
            refresh_expires_at=now + settings.refresh_token_lifetime,
            parent=parent,
        )
        self.ledger.add(grant, pair)

    def disconnect(
        self, *, company: str | None = None, client_id: str | None = None, reason: str
    ) -> int:
        """End the living grants of a company, of a client, or of both; how many there were."""
        living = self.ledger.living(client_id=client_id, company=company)
        return sum(grant.end(reason) for grant in living)
