"""What to do next, for each reason why a call may fail: the one table of it.

Knows the names of `ErrorReason` without their prefix, and those of gRPC's own statuses, which the
broker does not make and which therefore carry no reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "REAUTH_REQUIRED": "the customer consents again: token-broker connect TENANT",
        "TENANT_NOT_FOUND": "check the tenant (token-broker grants), or connect it:"
        " token-broker connect TENANT",
        "AUTHORIZATION_STATE_INVALID": "start again: token-broker connect TENANT",
        "CONSENT_DENIED": "ask the customer; then start again: token-broker connect TENANT",
        "CODE_REJECTED": "start again: token-broker connect TENANT",
        "EXCHANGE_OUTCOME_UNKNOWN": "start again: token-broker connect TENANT",
        "SUBJECT_MISMATCH": "ask the customer which Pleo company is meant",
        "SUBJECT_ALREADY_CONNECTED": "find the tenant that this company belongs to"
        " (token-broker grants --json); BROKER_ALLOW_SHARED_SUBJECT=true allows several",
        "REFRESH_TOKEN_REJECTED": "connect the tenant instead: token-broker connect TENANT",
        "SCOPE_MISSING": "consent with more scopes (BROKER_PLEO_SCOPES):"
        " token-broker connect TENANT",
        "CALLER_UNAUTHENTICATED": "set BROKER_CLIENT_CERT_FILE and BROKER_CLIENT_KEY_FILE, or ask"
        " the platform team for an identity",
        "CALLER_NOT_ALLOWED": "ask the platform team for a rule in the broker's policy",
        "CALLER_RATE_LIMITED": "slow down, then try again",
        "PROVIDER_UNAVAILABLE": "try again; where it stays, look at Pleo's status",
        "PROVIDER_REJECTED_CLIENT": "on-call: check BROKER_PLEO_CLIENT_ID and"
        " BROKER_PLEO_CLIENT_SECRET (token-broker doctor --registration)",
        "REFRESH_OUTCOME_UNKNOWN": "try again later; the broker follows it up by itself",
        "REFRESH_IN_PROGRESS": "try again",
        "GRANT_HELD": "on-call: so many refusals at once look like an incident, not like customers"
        " leaving; nothing is lost. Ask Pleo, then decide: token-broker guard discard, or confirm",
        "STORE_UNAVAILABLE": "try again; on-call: token-broker status tells what is away,"
        " token-broker doctor why",
        "KEY_UNAVAILABLE": "on-call: roll the newest keyset out to every replica"
        " (token-broker keys status)",
        "RECORD_UNREADABLE": "on-call: a stored value was moved or altered; connecting the tenant"
        " again replaces it",
        "INVALID_REQUEST": "mend the call; token-broker COMMAND --help tells what it takes",
        "INTERNAL_ERROR": "report it, with the id; the broker's log has the rest",
        # Of gRPC itself.
        "UNAVAILABLE": "is the broker up, and is it BROKER_ADDRESS? Does it want TLS"
        " (BROKER_CA_FILE), or a client certificate?",
        "DEADLINE_EXCEEDED": "try again; what was asked for may have been done",
        "UNIMPLEMENTED": "is BROKER_ADDRESS the broker, and as new as this command line?",
    }
)


def hint_for(reason: str) -> str:
    """Returns what to do next; empty where nobody knows."""
    return HINTS.get(reason, "")
