"""What an import does with a token: decided here on what was read, done in `takeover.py`.

Awaits nothing. Says which token is presented, if any, and what is on record of it before that. The
rules about records are `domain/imports.py`; what comes of it is `import_ending.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from broker.domain.errors import (
    FieldViolation,
    InvalidRequest,
    KeyUnavailable,
    RefreshTokenRejected,
    SubjectMismatch,
)
from broker.domain.freshness import LONGEST_LIFETIME, settled_lifetime
from broker.domain.grant import Grant, ScopesSource
from broker.domain.imports import (
    Existing,
    Import,
    Rejected,
    Spent,
    TakeOver,
    Unreadable,
    WouldReplace,
    decide_import,
    presented,
)
from broker.domain.outcomes import required_subject, subject_problem
from broker.domain.refresh_writes import Issue
from broker.domain.secret import RefreshToken
from broker.ports import Introspection
from broker.service.consenting import KnownScopes, described
from broker.service.messages import ImportGrant
from broker.service.rows import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A token that somebody handed over, and what Pleo says to the access token beside it."""

    request: ImportGrant
    fingerprint: bytes
    told: Introspection

    @property
    def tenant(self) -> str:
        """Whose it shall be."""
        return self.request.tenant

    @property
    def known_scopes(self) -> KnownScopes:
        """The scopes where Pleo does not tell."""
        return KnownScopes(scopes=self.request.scopes or (), source=ScopesSource.IMPORTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with a token once the claim is committed."""

    record: Import
    """Committed with the claim (law 2)."""

    refresh_token: RefreshToken
    """The one that lives now: as brought, or what it was rotated to."""

    keeps_living: bool
    """True: it is stored unpresented, and the first rotation waits for its access token's end."""

    is_spent: bool = False
    """True: it is not presented any more, and only the answer to its last presentation counts."""

    @property
    def presents_again(self) -> bool:
        """Whether the same token was presented before, and its answer never came."""
        return self.record.presentations > 1


def plan_import(brought: Brought, found: Import | None, reading: Reading) -> Plan | Grant:
    """Decides what to do with a token, given its record and its tenant's row.

    A grant means that the token made it already.

    Raises:
        InvalidRequest, RefreshTokenRejected, SubjectMismatch, KeyUnavailable: nothing is done.
    """
    step = decide_import(found, reading.grant, may_replace=brought.request.replace)
    match step:
        case Existing():
            return reading.grant
        case Rejected(error=error):
            raise RefreshTokenRejected(tenant=brought.tenant, error=error)
        case Unreadable():
            what = "this replica lacks the key of the token that the imported one was rotated to"
            raise KeyUnavailable(what, tenant=brought.tenant)
        case WouldReplace():
            raise _would_replace(brought.tenant)
        case TakeOver():
            return _plan(brought, found, reading)
        case Spent():
            record = _record(brought, found)
            token = record.refresh_token or brought.request.refresh_token
            return Plan(record=record, refresh_token=token, keeps_living=False, is_spent=True)
        case _:
            assert_never(step)


def _plan(brought: Brought, found: Import | None, reading: Reading) -> Plan:
    told = brought.told.subject
    if told is not None and (problem := mismatch(brought, reading.grant, told)):
        raise problem
    record = _record(brought, found)
    # Of a token that was presented, the access token beside it may be dead.
    is_as_brought = record.refresh_token == brought.request.refresh_token
    keeps_living = is_as_brought and not record.presentations and _lives(brought, reading)
    return Plan(
        record=record if keeps_living else presented(record),
        refresh_token=record.refresh_token or brought.request.refresh_token,
        keeps_living=keeps_living,
    )


def _record(brought: Brought, found: Import | None) -> Import:
    as_brought = brought.request.refresh_token
    if found is None:
        return Import(
            tenant=brought.tenant, fingerprint=brought.fingerprint, refresh_token=as_brought
        )
    # One that does not open here was brought again.
    return replace(found, refresh_token=found.refresh_token or as_brought)


def _lives(brought: Brought, reading: Reading) -> bool:
    request = brought.request
    if request.access_token is None or request.expires_at is None:
        return False
    return request.expires_at > reading.now and brought.told.is_live is not False


def mismatch(brought: Brought, grant: Grant, actual: str | None) -> SubjectMismatch | None:
    """Returns why the company is not the one that it must be, if so; None: not determined."""
    return subject_problem(brought.tenant, required=required_company(brought, grant), actual=actual)


def required_company(brought: Brought, grant: Grant) -> str | None:
    """Returns the company that the token must be of, if it may not be any."""
    expected = brought.request.expected_subject
    return required_subject(grant, expected=expected, allow_change=False)


def kept_issue(brought: Brought, reading: Reading) -> Issue:
    """Returns the pair as it was brought: due when its access token ends, and not before."""
    request = brought.request
    ends_at = request.expires_at or reading.now
    expires_at = min(ends_at, reading.now + LONGEST_LIFETIME)
    issue = Issue(
        access_token=request.access_token,
        refresh_token=request.refresh_token,
        token_type="Bearer",  # noqa: S106 - RFC 6750 name
        lifetime=settled_lifetime(None, reading.grant.lifetime),
        expires_at=expires_at,
        renew_at=expires_at,
    )
    return described(issue, brought.told, brought.known_scopes)


def _would_replace(tenant: str) -> InvalidRequest:
    what = "must be set: the tenant has an active grant, which the import would end"
    return InvalidRequest([FieldViolation(field="replace", description=what)], tenant=tenant)
