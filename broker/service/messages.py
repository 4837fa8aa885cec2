"""What callers ask of the service, and what they get: the API's messages as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from broker.domain.facts import Source
from broker.domain.secret import AccessToken, AuthorizationCode, RefreshToken


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedToken:
    """An access token for a caller, with times on PostgreSQL's clock."""

    access_token: AccessToken
    token_type: str
    expires_at: datetime
    expires_in: timedelta
    """From now; never negative."""

    reuse_until: datetime
    """Until then no planned rotation (law 9); now, where degraded."""

    reuse_for: timedelta
    """From now; zero where degraded."""

    scopes: tuple[str, ...]
    generation: int
    source: Source
    """For whoever counts; callers are not told."""

    is_degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StartAuthorization:
    """Begin a consent. Fields are checked for their form already."""

    tenant: str
    caller: str
    session_binding: bytes = field(repr=False)
    scopes: tuple[str, ...] | None = None
    """None: the default scopes of the settings."""

    redirect_uri: str | None = None
    """None: the first registered one."""

    expected_subject: str | None = None
    allow_subject_change: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedAuthorization:
    """Where to send the customer's browser."""

    authorization_uri: str = field(repr=False)
    state: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationDenied:
    """Pleo redirected with an error instead of a code (RFC 6749 §4.1.2.1)."""

    error: str
    error_description: str = ""


AuthorizationResult: TypeAlias = AuthorizationCode | AuthorizationDenied


@dataclass(frozen=True, slots=True, kw_only=True)
class CompleteAuthorization:
    """Finish a consent with what the redirect carried."""

    tenant: str
    caller: str
    state: str = field(repr=False)
    session_binding: bytes = field(repr=False)
    result: AuthorizationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportGrant:
    """Take over a refresh token that somebody else held."""

    tenant: str
    caller: str
    refresh_token: RefreshToken
    replace: bool = False
    access_token: AccessToken | None = None
    expires_at: datetime | None = None
    """Of the access token; required with it."""

    scopes: tuple[str, ...] | None = None
    expected_subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeGrant:
    """End a grant."""

    tenant: str
    caller: str
    reason: str
    at_provider: bool = False
    """Also delete the installation at Pleo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshGrant:
    """Rotate a grant's tokens although they are not due."""

    tenant: str
    caller: str
    reason: str
