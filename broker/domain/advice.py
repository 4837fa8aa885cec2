"""What a person is to do about a grant: the end of its story, one sentence or two.

Says what the command is called where there is one. Law 5 shows here: only what Pleo has said sends
the customer through the consent again.
"""

from __future__ import annotations

from typing import Final, assert_never

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.explanation import Known
from broker.domain.grant import Doubt, FailureKind, Grant, GrantState, ReauthCause, UnreadablePair

NOTHING: Final = "Nothing: it works."

_CONSENT: Final = "Let the customer consent again (token-broker connect {tenant})"

_BREAKER: Final = {
    BreakerCause.CLIENT_REJECTED: (
        "Mend our client at Pleo or its secret (BROKER_PLEO_CLIENT_ID, BROKER_PLEO_CLIENT_SECRET);"
        " every grant waits for that, and none is harmed."
    ),
    BreakerCause.OUTCOMES_UNKNOWN: (
        "Look at Pleo's status and at the network towards it; every grant waits for a probe that is"
        " answered."
    ),
    BreakerCause.RATE_LIMITED: (
        "Nothing: Pleo limits us, and probes go on. Lower BROKER_PLEO_MAX_RATE if it comes back."
    ),
}


def what_to_do(known: Known) -> str:
    """Returns the advice."""
    grant = known.grant
    match grant.state:
        case GrantState.UNCONNECTED:
            return f"Connect the customer (token-broker connect {grant.tenant})."
        case GrantState.REVOKED:
            return f"Nothing; or connect it anew (token-broker connect {grant.tenant})."
        case GrantState.REAUTH_REQUIRED:
            return _reconnect(grant)
        case GrantState.HELD:
            return (
                "Decide whether so many refusals are an incident: token-broker guard discard brings"
                " them back, token-broker guard confirm believes them. No customer need act yet."
            )
        case GrantState.ACTIVE:
            return _about_active(grant, known.breaker)
        case _:
            assert_never(grant.state)


def _reconnect(grant: Grant) -> str:
    advice = _CONSENT.format(tenant=grant.tenant)
    if grant.pair is not None and grant.quarantined_until is not None:
        return f"{advice}; if it was an incident, token-broker guard discard brings it back."
    if grant.reauth is not None and grant.reauth.cause is ReauthCause.ROTATION_LOST:
        return f"{advice}. It was an answer that was lost, and not the customer who left."
    return f"{advice}."


def _about_active(grant: Grant, breaker: Breaker | None) -> str:
    match grant.pair:
        case UnreadablePair(is_key_missing=True, key_id=key_id):
            return f"Roll the keyset with key {key_id} out to this replica (BROKER_KEYSET_FILE)."
        case UnreadablePair() | None:
            return (
                "Find out who changed the row; restore it from a backup of today, or let the"
                f" customer consent again (token-broker connect {grant.tenant})."
            )
        case _:
            pass
    if breaker is not None:
        return _BREAKER[breaker.cause]
    if grant.doubt is not Doubt.NONE:
        return (
            "Wait: the refresh token is presented once more. If Pleo refuses it then, the customer"
            " must consent again."
        )
    if grant.failures.kind is FailureKind.NONE:
        return NOTHING
    return "Wait: it is tried again by itself. If it goes on, look at Pleo's status."
