"""What a person is to do about a grant: the end of its story, one sentence or two.

Says what the command is called where there is one. Law 5 shows here: only what Pleo has said sends
the customer through the consent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from broker.domain.breaker import Breaker, BreakerCause
from broker.domain.explanation import Known
from broker.domain.grant import Doubt, FailureKind, Grant, GrantState, ReauthCause, UnreadablePair
from broker.domain.guard import GuardState
from broker.domain.trouble import Trouble, advice_on

NOTHING: Final = "Nothing: it works."

_WAIT: Final = "Wait: it is tried again by itself. If it goes on, look at Pleo's status."

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
    """Returns the advice: first what is in the way of the whole fleet, then what is its own."""
    own = _about(known)
    if known.grant.state is GrantState.REVOKED:
        return own
    first = advice_on(known.troubles, *_in_the_way(known.breaker))
    if not first:
        return own
    return first if own in {NOTHING, _WAIT} else f"{first} Then: {own}"


def what_to_do_around(troubles: Sequence[Trouble], breaker: Breaker | None) -> str:
    """Returns the advice where no grant is asked about; empty: there is nothing to do."""
    first = advice_on(troubles, *_in_the_way(breaker))
    last = advice_on(troubles, "redis")  # nobody fails for it
    return " ".join(filter(None, (first, _BREAKER[breaker.cause] if breaker else "", last)))


def _in_the_way(breaker: Breaker | None) -> Sequence[str]:
    """Returns the checks without which nothing is renewed.

    An open breaker is told of with what closes it, which Pleo's last answer does not say.
    """
    return ("postgres", "schema", "home", "keyset", *(() if breaker else ("pleo",)))


def _about(known: Known) -> str:
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
            return _about_active(known)
        case _:
            assert_never(grant.state)


def _reconnect(grant: Grant) -> str:
    advice = _CONSENT.format(tenant=grant.tenant)
    if grant.pair is not None and grant.quarantined_until is not None:
        return f"{advice}; if it was an incident, token-broker guard discard brings it back."
    if grant.reauth is not None and grant.reauth.cause is ReauthCause.ROTATION_LOST:
        return f"{advice}. It was an answer that was lost, and not the customer who left."
    return f"{advice}."


def _about_active(known: Known) -> str:
    grant = known.grant
    match grant.pair:
        case UnreadablePair(is_key_missing=True, key_id=key_id):
            return f"Roll the keyset with key {key_id} out to this replica (BROKER_KEYSET_FILE)."
        case UnreadablePair() | None:
            return (
                "Find out who changed the row; restore it from a backup of today, or let the"
                f" customer consent again (token-broker connect {grant.tenant})."
            )
        case _:
            return _about_readable(known)


def _about_readable(known: Known) -> str:
    grant = known.grant
    if known.breaker is not None:
        return _BREAKER[known.breaker.cause]
    if grant.doubt is not Doubt.NONE:
        return (
            "Wait: the refresh token is presented once more. If Pleo refuses it then, the customer"
            " must consent again."
        )
    if grant.failures.kind is not FailureKind.NONE:
        return _WAIT
    if known.guard.state is GuardState.HOLDING:
        return (
            "Nothing for this one. Others are held: decide for them, token-broker guard discard or"
            " token-broker guard confirm."
        )
    return advice_on(known.troubles, "redis") or NOTHING
