"""An escrow as the text that is sealed, and back. The text holds tokens in clear: seal it.

Read by any replica of this release or the next, so it only ever gains fields that may be missing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from broker.domain.escrow import Escrow
from broker.domain.grant import Attempt, AttemptKind, AttemptPhase, ScopesSource
from broker.domain.refresh_writes import Issue
from broker.domain.secret import AccessToken, RefreshToken, Secret


class EscrowUnreadableError(ValueError):
    """What was opened is no escrow, or one of a release that this one does not know."""


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    tenant: str
    number: int
    attempt_id: str
    kind: AttemptKind
    base_generation: int
    deadline: AwareDatetime
    phase: AttemptPhase
    started_at: AwareDatetime
    replica: str
    access_token: str | None
    refresh_token: str
    token_type: str
    lifetime: timedelta
    expires_at: AwareDatetime
    renew_at: AwareDatetime
    scopes: tuple[str, ...] | None
    scopes_source: ScopesSource
    subject: str | None
    import_fingerprint: bytes | None
    state_hash: bytes | None = None
    consent_attempt: int | None = None
    imported: str | None = None


def write_escrow(escrow: Escrow) -> bytes:
    """Returns an escrow as text."""
    attempt, issued = escrow.attempt, escrow.issued
    access_token = issued.access_token
    written = _Written(
        tenant=escrow.tenant,
        number=attempt.number,
        attempt_id=attempt.attempt_id,
        kind=attempt.kind,
        base_generation=attempt.base_generation,
        deadline=attempt.deadline,
        phase=attempt.phase,
        started_at=attempt.started_at,
        replica=attempt.replica,
        access_token=None if access_token is None else access_token.reveal(),
        refresh_token=issued.refresh_token.reveal(),
        token_type=issued.token_type,
        lifetime=issued.lifetime,
        expires_at=issued.expires_at,
        renew_at=issued.renew_at,
        scopes=issued.scopes,
        scopes_source=issued.scopes_source,
        subject=issued.subject,
        import_fingerprint=_hex(escrow.import_fingerprint),
        state_hash=_hex(escrow.state_hash),
        consent_attempt=escrow.consent_attempt,
        imported=None if escrow.imported is None else escrow.imported.reveal(),
    )
    return written.model_dump_json().encode()


def read_escrow(text: bytes) -> Escrow:
    """Returns the escrow that was written.

    Raises:
        EscrowUnreadableError: it is none.
    """
    try:
        read = _Written.model_validate_json(text)
    except ValidationError as error:
        # Without the cause: what it holds was opened.
        raise EscrowUnreadableError(f"{error.error_count()} fields are not as written") from None
    try:
        fingerprint, state_hash = _bytes(read.import_fingerprint), _bytes(read.state_hash)
    except ValueError:
        raise EscrowUnreadableError("a digest is not in hexadecimal") from None
    return Escrow(
        tenant=read.tenant,
        attempt=_attempt(read),
        issued=_issue(read),
        import_fingerprint=fingerprint,
        state_hash=state_hash,
        consent_attempt=read.consent_attempt,
        imported=None if read.imported is None else RefreshToken(Secret(read.imported)),
    )


def _hex(value: bytes | None) -> bytes | None:
    return None if value is None else value.hex().encode()


def _bytes(written: bytes | None) -> bytes | None:
    return None if written is None else bytes.fromhex(written.decode())


def _attempt(read: _Written) -> Attempt:
    return Attempt(
        number=read.number,
        attempt_id=read.attempt_id,
        kind=read.kind,
        base_generation=read.base_generation,
        deadline=read.deadline,
        phase=read.phase,
        started_at=read.started_at,
        replica=read.replica,
    )


def _issue(read: _Written) -> Issue:
    access_token = read.access_token
    return Issue(
        access_token=None if access_token is None else AccessToken(Secret(access_token)),
        refresh_token=RefreshToken(Secret(read.refresh_token)),
        token_type=read.token_type,
        lifetime=read.lifetime,
        expires_at=read.expires_at,
        renew_at=read.renew_at,
        scopes=read.scopes,
        scopes_source=read.scopes_source,
        subject=read.subject,
    )
