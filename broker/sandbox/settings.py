"""What the sandbox knows of the world, and how strict it is.

Decides nothing. Every default is what pleo.md states, and where it calls a question open, the worse
of the two possibilities. All credentials in here are made up and open no door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

ReuseMode = Literal["strict", "grace", "lenient"]
"""A superseded refresh token: ends the grant · works once more if it is the immediately previous
one, else ends the grant · is refused while the grant lives on."""

SecondConsent = Literal["leaves", "ends", "replaces"]
"""What a further consent of a company to the same client does to the first grant: nothing · ends
it · goes on as the same grant, so that the first one's refresh tokens count as superseded."""

ClientAuthentication = Literal["basic", "body", "either"]
"""Where a client's secret is accepted at the token endpoint. Pleo's pages contradict each other;
most say Basic alone. Both at once are refused always (RFC 6749 §2.3)."""

DeletionScope = Literal["company", "client"]
"""Whose tokens `DELETE /v1/installations/me` revokes. Pleo says "for the client", no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A registered OAuth client. Redirect URIs are compared as they stand (RFC 9700 §2.1)."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: tuple[str, ...]
    application_name: str = "Sandbox application"


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """One legal entity that may consent, `urn:pleo:company:<uuid>`."""

    urn: str
    name: str


DEMO_CLIENT: Final = Client(
    client_id="sandbox-client",
    client_secret="sandbox-secret",  # noqa: S106 - made up, and printed nowhere but here
    redirect_uris=("http://localhost:8400/callback", "http://127.0.0.1:8400/callback"),
    application_name="Demo integration",
)

DEMO_COMPANIES: Final = (
    Company(urn="urn:pleo:company:00000000-0000-4000-8000-000000000001", name="Acme ApS"),
    Company(urn="urn:pleo:company:00000000-0000-4000-8000-000000000002", name="Blå Bjerg A/S"),
    Company(urn="urn:pleo:company:00000000-0000-4000-8000-000000000003", name="Cargo & Sons Ltd"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The world at the start, and the rules. All rules can be changed while it runs."""

    clients: tuple[Client, ...] = (DEMO_CLIENT,)
    companies: tuple[Company, ...] = DEMO_COMPANIES
    mode: ReuseMode = "strict"
    client_authentication: ClientAuthentication = "basic"
    second_consent: SecondConsent = "leaves"
    deletion_ends: DeletionScope = "company"
    # Documented once as 15 minutes (pleo.md, "Lifetimes and rotation").
    access_token_lifetime: timedelta = timedelta(minutes=15)
    # "At least 60 days, may end earlier": the least that was promised.
    refresh_token_lifetime: timedelta = timedelta(days=60)
    # "Seconds: open". RFC 6749 §4.1.2 allows ten minutes; a minute is what strict servers allow.
    code_lifetime: timedelta = timedelta(seconds=60)
    # `subjectURN` of the API's introspection is optional (pleo.md, "Who the tenant is").
    names_company: bool = True
    # Characters of a token. Pleo's may be JWT-sized: raise this to several thousand to try it.
    secret_length: int = 64
