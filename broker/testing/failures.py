"""The failures of TokenService by their reason, as `errors.proto` names them.

What a test wants of each is its class at the client; the facts in it are made up. Where waiting
helps, no time is named to wait: a channel that retries costs a test nothing, and the client, which
keeps a failure for that long, asks again as soon as the test has mended it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from broker.domain.errors import (
    BrokerError,
    CallerNotAllowed,
    CallerRateLimited,
    CallerUnauthenticated,
    FieldViolation,
    GrantHeld,
    InternalError,
    InvalidRequest,
    KeyUnavailable,
    ProviderRejectedClient,
    ProviderUnavailable,
    RecordUnreadable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    ScopeMissing,
    StoreUnavailable,
    TenantNotFound,
)

RETRY_AFTER: Final = timedelta(0)
"""An error of `broker.domain.errors` names any other."""

_SAID: Final = "the test says so"

_WAITING_HELPS: Final = (
    CallerRateLimited,
    GrantHeld,
    KeyUnavailable,
    ProviderUnavailable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    StoreUnavailable,
)

_OTHERS: Final[Mapping[str, Callable[[str], BrokerError]]] = MappingProxyType(
    {
        "CALLER_NOT_ALLOWED": lambda tenant: CallerNotAllowed(_SAID, tenant=tenant),
        "CALLER_UNAUTHENTICATED": lambda _: CallerUnauthenticated(_SAID),
        "INTERNAL_ERROR": lambda tenant: InternalError(defect_id="of-a-test", tenant=tenant),
        "INVALID_REQUEST": lambda tenant: InvalidRequest(
            [FieldViolation(field="tenant", description=_SAID)], tenant=tenant
        ),
        "PROVIDER_REJECTED_CLIENT": lambda tenant: ProviderRejectedClient(
            tenant=tenant, error="invalid_client"
        ),
        "RECORD_UNREADABLE": lambda tenant: RecordUnreadable(_SAID, tenant=tenant),
        "SCOPE_MISSING": lambda tenant: ScopeMissing(tenant=tenant, missing=("of-a-test",)),
        "TENANT_NOT_FOUND": lambda tenant: TenantNotFound(tenant=tenant),
    }
)


def failure_of(reason: str, *, tenant: str) -> BrokerError:
    """Returns the failure of a reason, as `GRANT_HELD`.

    Raises:
        ValueError: TokenService does not fail so.
    """
    for kind in _WAITING_HELPS:
        if kind.reason == reason:
            return kind(_SAID, tenant=tenant, retry_after=RETRY_AFTER)
    if reason not in _OTHERS:
        known = sorted([*_OTHERS, *(kind.reason for kind in _WAITING_HELPS)])
        raise ValueError(f"{reason} is none of {', '.join(known)}; see also require_reauth()")
    return _OTHERS[reason](tenant)
