"""How a completed authorization ended, kept so that a repeated call gets the same answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from broker.domain.authorization import Outcome
from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CodeRejected,
    ConsentDenied,
    ExchangeOutcomeUnknown,
    ProviderRejectedClient,
    SubjectAlreadyConnected,
    SubjectMismatch,
)
from broker.domain.grant import Grant

SUCCESS: Final = Outcome(reason="", metadata={})


def outcome_of(error: BrokerError) -> Outcome:
    """Returns what to keep of an error."""
    return Outcome(reason=error.reason, metadata=error.metadata)


def error_of(outcome: Outcome, tenant: str) -> BrokerError | None:
    """Returns the error that was kept, or None for success."""
    if not outcome.reason:
        return None
    made = _ERRORS.get(outcome.reason)
    return AuthorizationStateInvalid(tenant=tenant) if made is None else made(tenant, outcome)


_ERRORS: Final[Mapping[str, Callable[[str, Outcome], BrokerError]]] = {
    ConsentDenied.reason: lambda tenant, kept: ConsentDenied(tenant=tenant, error=_error(kept)),
    CodeRejected.reason: lambda tenant, kept: CodeRejected(tenant=tenant, error=_error(kept)),
    ProviderRejectedClient.reason: lambda tenant, kept: ProviderRejectedClient(
        tenant=tenant, error=_error(kept)
    ),
    SubjectAlreadyConnected.reason: lambda tenant, kept: SubjectAlreadyConnected(
        tenant=tenant, subject=kept.metadata.get("subject", "")
    ),
    SubjectMismatch.reason: lambda tenant, kept: SubjectMismatch(
        tenant=tenant,
        expected=kept.metadata.get("expected", ""),
        actual=kept.metadata.get("actual") or None,
    ),
    ExchangeOutcomeUnknown.reason: lambda tenant, _: ExchangeOutcomeUnknown(tenant=tenant),
}


def _error(kept: Outcome) -> str:
    return kept.metadata.get("error", "")


def required_subject(grant: Grant, *, expected: str | None, allow_change: bool) -> str | None:
    """Returns the company that must have consented, if it may not be any.

    It is the one that was named at the start; else, unless a change was allowed, the one that the
    tenant is known to be.
    """
    return expected or (None if allow_change else grant.subject)


def subject_problem(
    tenant: str, *, required: str | None, actual: str | None
) -> SubjectMismatch | None:
    """Returns why the company that consented is not the one that it must be, if so.

    A company that cannot be determined is not the one.
    """
    if required is None or required == actual:
        return None
    return SubjectMismatch(tenant=tenant, expected=required, actual=actual)
