"""Where Pleo is (pleo.md, "Endpoints"). Each environment has client credentials of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The addresses of one Pleo."""

    authorize_url: str
    token_url: str
    api_url: str | None
    """Without a slash at its end. None: there is no API to ask."""


ENVIRONMENTS: Final[Mapping[Literal["staging", "production"], Environment]] = MappingProxyType(
    {
        "staging": Environment(
            authorize_url="https://auth.staging.pleo.io/oauth/authorize",
            token_url="https://auth.staging.pleo.io/oauth/token",  # noqa: S106 - an address
            api_url="https://external.staging.pleo.io",
        ),
        "production": Environment(
            authorize_url="https://auth.pleo.io/oauth/authorize",
            token_url="https://auth.pleo.io/oauth/token",  # noqa: S106 - an address
            api_url="https://external.pleo.io",
        ),
    }
)
