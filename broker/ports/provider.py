"""Pleo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.domain.answers import Answer
from broker.domain.requests import AuthorizationRequest, TokenRequest
from broker.domain.secret import AccessToken


@dataclass(frozen=True, slots=True, kw_only=True)
class WireWindow:
    """When a request may be sent, on the event loop's clock in seconds."""

    send_by: float
    """The body is not written after this: the attempt is `NotProcessed` then."""

    answer_by: float
    """The answer is listened for until this, shortly before the attempt's deadline."""

    on_sending: Callable[[], None]
    """Called right before the first byte of the body is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """What came of one token request."""

    answer: Answer
    sent_at: float | None
    """On the event loop's clock; None: not sent. `expires_in` counts from here."""

    http_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Introspection:
    """What Pleo's API says to an access token (pleo.md, "Who the tenant is")."""

    is_live: bool | None
    """None: no readable answer."""

    subject: str | None = None
    scopes: tuple[str, ...] | None = None


class Provider(Protocol):
    """Pleo. No method raises for anything that Pleo or the network does."""

    def authorization_uri(self, request: AuthorizationRequest) -> str:
        """Builds the address to send the customer's browser to."""

    async def present(self, request: TokenRequest, window: WireWindow) -> Presentation:
        """Sends one token request, once, and reads the answer.

        Not safe to cancel after `on_sending`: the answer would be lost (law 3).
        """

    async def introspect(self, access_token: AccessToken) -> Introspection:
        """Asks Pleo's API who the token is for, in at most 5 s. Safe to cancel and to retry.

        Where no API URL is set, nothing is asked and nothing known.
        """

    async def delete_installation(self, access_token: AccessToken) -> None:
        """Deletes our installation at Pleo (`DELETE /v1/installations/me`). Safe to retry.

        Raises:
            ProviderUnavailable: Pleo refused, or was not asked.
            RefreshOutcomeUnknown: no answer came, and Pleo may do it yet.
        """
