"""Does `doctor --registration`: what to register with Pleo for these settings. Asks nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from broker.cli.configured import read_settings
from broker.cli.showing import say, show_fields, show_json
from broker.config import ClientAuth, RegistrationSettings
from broker.wiring import pleo

_METHODS: Final = {
    ClientAuth.BASIC: "client_secret_basic",
    ClientAuth.BODY: "client_secret_post",
}


def show_registration(environ: Mapping[str, str], *, as_json: bool) -> None:
    """Prints the client's metadata, by the names of RFC 7591 §2.

    Raises:
        CommandFailed: the settings do not do.
    """
    settings = read_settings(RegistrationSettings, environ)
    registration: dict[str, str | list[str]] = {
        "environment": settings.pleo_environment.value,
        "client_id": settings.pleo_client_id,
        "redirect_uris": list(settings.pleo_redirect_uris),
        "scope": " ".join(settings.pleo_scopes),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "code_challenge_method": "S256",
        "token_endpoint_auth_method": _METHODS[settings.pleo_client_auth],
        "token_endpoint": pleo(settings).token_url,
    }
    if as_json:
        show_json(registration)
    else:
        show_fields({name: _text(value) for name, value in registration.items()})
    if not settings.pleo_redirect_uris:
        say("warning: nobody can authorize: BROKER_PLEO_REDIRECT_URIS is empty")


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "  ".join(value)
