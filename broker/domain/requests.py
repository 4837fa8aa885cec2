"""What is asked of Pleo: the messages of the authorization and token endpoints, before encoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from broker.domain.secret import AuthorizationCode, CodeVerifier, RefreshToken


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """RFC 6749 §4.1.1 with RFC 7636 §4.3, always S256."""

    redirect_uri: str
    scopes: tuple[str, ...]
    state: str = field(repr=False)
    code_verifier: CodeVerifier
    """The challenge is made from it; it does not leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """RFC 6749 §4.1.3 with RFC 7636 §4.5."""

    code: AuthorizationCode
    redirect_uri: str
    code_verifier: CodeVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshRequest:
    """RFC 6749 §6."""

    refresh_token: RefreshToken


TokenRequest: TypeAlias = ExchangeRequest | RefreshRequest
