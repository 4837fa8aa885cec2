"""What comes of an import without a grant: its record, and what the caller is told."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from broker.domain.answers import Misconfigured, NotProcessed, Refused, Unknown
from broker.domain.backoff import FIRST
from broker.domain.errors import (
    BrokerError,
    ProviderRejectedClient,
    ProviderUnavailable,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
)
from broker.domain.imports import Import, not_presented, refused, unanswered
from broker.service.settle import Claimed

Tokenless: TypeAlias = Refused | NotProcessed | Unknown | Misconfigured
"""The answers that bring no tokens."""


def record_after(record: Import, answer: Tokenless) -> Import:
    """Returns what is on record after an answer that brought no tokens."""
    match answer:
        case Refused(error=error):
            return refused(record, error)
        case NotProcessed() | Misconfigured():
            return not_presented(record)
        case Unknown():
            return unanswered(record)
        case _:
            assert_never(answer)


def error_after(claimed: Claimed, answer: Tokenless) -> BrokerError:
    """Returns what the caller is told about an answer that brought no tokens."""
    tenant = claimed.reading.grant.tenant
    match answer:
        case Refused(error=error):
            return RefreshTokenRejected(tenant=tenant, error=error)
        case Misconfigured(error=error):
            return ProviderRejectedClient(tenant=tenant, error=error)
        case NotProcessed(retry_after=retry_after):
            return ProviderUnavailable(
                "Pleo cannot be reached, or asks us to wait: import again",
                tenant=tenant,
                retry_after=retry_after or FIRST,
            )
        case Unknown():
            return RefreshOutcomeUnknown(
                "the token was sent to Pleo and no answer came: import again later",
                tenant=tenant,
                retry_after=max(claimed.attempt.deadline - claimed.reading.latest_now(), FIRST),
            )
        case _:
            assert_never(answer)


def came_too_late(tenant: str) -> BrokerError:
    """Returns what the caller is told whose token became no grant, because others were faster."""
    # Of the reasons to come back later the one that no channel obeys by itself: a call that is
    # tried again unasked would undo the revocation.
    return RefreshOutcomeUnknown(
        "another consent or a revocation came first: import again if it is still wanted",
        tenant=tenant,
    )
