"""What callers of a grant will see while something is in the way of its renewal."""

from __future__ import annotations

from collections.abc import Iterator

from broker.domain.breaker import BreakerCause
from broker.domain.errors import (
    ProviderRejectedClient,
    ProviderUnavailable,
    RefreshOutcomeUnknown,
    StoreUnavailable,
)
from broker.domain.explanation import Known
from broker.domain.freshness import Freshness, freshness
from broker.domain.grant import GrantState, TokenPair
from broker.domain.moments import at
from broker.domain.trouble import is_in, is_store_in


def is_hindered(known: Known) -> bool:
    """Whether callers get something other than they would if all around the grant were well."""
    is_whole = known.grant.state is GrantState.ACTIVE and isinstance(known.grant.pair, TokenPair)
    return is_whole and bool(_reason(known))


def told_of_callers(known: Known) -> Iterator[str]:
    """Returns the line about it; none where nothing is in the way, or nothing could be."""
    if not is_hindered(known):
        return
    grant, now, reason = known.grant, known.now, _reason(known)
    is_rejected = grant.rejection.generation >= grant.generation
    stands = Freshness.EXPIRED if is_rejected else freshness(grant, now)
    if stands is Freshness.EXPIRED or grant.expires_at is None:
        yield f"While this lasts, callers are told {reason}."
        return
    since = "now"
    if stands is Freshness.FRESH and grant.renew_at is not None:
        since = at(grant.renew_at, now)
    yield (
        "Callers get its access token. While this lasts it is not renewed: they get it as degraded"
        f" from {since} on, and from {at(grant.expires_at, now)} on are told {reason}."
    )


def _reason(known: Known) -> str:
    """Returns what they are told once the token is dead; empty: it will be renewed."""
    if is_store_in(known.troubles):
        return StoreUnavailable.reason
    if known.breaker is not None:
        is_ours = known.breaker.cause is BreakerCause.CLIENT_REJECTED
        return ProviderRejectedClient.reason if is_ours else ProviderUnavailable.reason
    if is_in("pleo", known.troubles):
        return f"{ProviderUnavailable.reason} or {RefreshOutcomeUnknown.reason}"
    return ""
