"""Answers as no provider should give them: what callers of a real broker are told of each.

How an answer is read is `tests/unit/test_token_response.py`'s affair; here it goes all the way. Of
each kind there are fewer than open the breaker or trip the guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc
import pytest

from broker.sandbox.faults import Alter, Half, Step, Substitute, rate_limit, rubbish
from broker.sandbox.oauth import Answer
from broker.v1.grant_service_pb2 import Grant
from support.fleet import Fleet
from support.onboarding import (
    Customer,
    all_of,
    expire,
    get,
    grant_of,
    new_customer,
    take_over_living,
)
from support.replica import Replica
from support.rpc import told_by

pytestmark = pytest.mark.asyncio(loop_scope="module")

HTML: Final = "text/html; charset=iso-8859-1"

UNKNOWN: Final = "REFRESH_OUTCOME_UNKNOWN"
REAUTH: Final = "REAUTH_REQUIRED"

REFUSAL: Final = b'{"error": "invalid_grant"}'


def instead(status: int, body: bytes, *, content_type: str = "application/json") -> Substitute:
    """Answer this, and do nothing."""
    return Substitute(answer=Answer(status=status, body=body, content_type=content_type))


TOKENS: Final[Mapping[str, Step]] = {
    "nothing odd": Alter(),
    "a lifetime as text": Alter(replace={"expires_in": "900"}),
    "a lifetime of a fraction": Alter(replace={"expires_in": 900.5}),
    "a lifetime of nothing": Alter(replace={"expires_in": 0}),
    "a lifetime before now": Alter(replace={"expires_in": -1}),
    "a lifetime without end": Alter(replace={"expires_in": 10**400}),
    "no lifetime": Alter(omit=("expires_in",)),
    "a small bearer": Alter(replace={"token_type": "bearer"}),
    "another type": Alter(replace={"token_type": "mac"}),
    "no type": Alter(omit=("token_type",)),
    "no scope": Alter(omit=("scope",)),
    "a list of scopes": Alter(replace={"scope": ["a:read"]}),
    "a scope that PostgreSQL cannot hold": Alter(replace={"scope": "a\0b c"}),
    "fields of its own": Alter(replace={"id_token": "a.b.c", "more": {"of": ["it"] * 10_000}}),
    "an error beside the tokens": Alter(replace={"error": "invalid_grant"}),
}
"""A rotation is a rotation: each caller gets the token that lives."""

REASONS: Final[Mapping[str, tuple[Step, str]]] = {
    "a proxy's 400": (instead(400, b"<h1>invalid_grant</h1>", content_type=HTML), UNKNOWN),
    "a redirect": (instead(307, b""), UNKNOWN),
    "rubbish": (rubbish(), UNKNOWN),
    "half an answer": (Half(), UNKNOWN),
    "a limit": (rate_limit(retry_after="soon"), "PROVIDER_UNAVAILABLE"),
    "a refusal as HTML": (instead(400, REFUSAL, content_type=HTML), REAUTH),
    "a refusal as 401": (instead(401, REFUSAL), REAUTH),
    "a refusal that is no UTF-8": (
        instead(403, b'{"error": "invalid_grant", "error_description": "abgel\xe4ufen"}'),
        REAUTH,
    ),
}


async def meet(brokers: Fleet, at: Replica, steps: Mapping[str, Step]) -> dict[str, Customer]:
    """Has a tenant's next refresh answered in each of these ways."""
    customers = {name: new_customer(brokers.sandbox) for name in steps}
    await take_over_living(brokers, at, customers.values())
    for name, customer in customers.items():
        brokers.sandbox.faults.add(
            steps[name], grant_type="refresh_token", company=customer.company
        )
    await expire(brokers, *(each.tenant for each in customers.values()), known_to=at)
    return customers


async def told(at: Replica, customer: Customer) -> tuple[str, str]:
    """Returns the access token that a caller gets, or the reason and the cause."""
    try:
        return (await get(at.tokens, customer.tenant)).access_token, ""
    except grpc.aio.AioRpcError as error:
        info = told_by(error).error_info
        return info.reason, info.metadata.get("cause", "")


async def test_an_odd_answer_with_tokens_serves_the_one_that_lives(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customers = await meet(two, first, TOKENS)

    answers = await all_of(told(second, each) for each in customers.values())

    ledger = two.sandbox.server.realm.ledger
    living = [
        ledger.living(client_id=None, company=each.company)[0].current.access_token
        for each in customers.values()
    ]
    assert dict(zip(customers, answers, strict=True)) == {
        name: (token, "") for name, token in zip(customers, living, strict=True)
    }


async def test_an_odd_answer_without_tokens_is_believed_only_about_the_grant(two: Fleet) -> None:
    first, second = two.replicas[:2]
    customers = await meet(two, first, {name: step for name, (step, _) in REASONS.items()})

    answers = await all_of(told(second, each) for each in customers.values())

    assert dict(zip(customers, answers, strict=True)) == {
        name: (reason, "EXPIRED_OR_REVOKED" if reason == REAUTH else "")
        for name, (_, reason) in REASONS.items()
    }
    states = [(await grant_of(first, each.tenant)).state for each in customers.values()]
    assert [each == Grant.STATE_REAUTH_REQUIRED for each in states] == [
        reason == REAUTH for _, reason in REASONS.values()
    ]
    counts = [two.sandbox.record.counts(each.company) for each in customers.values()]
    assert {each.presentations_of_superseded for each in counts} == {0}
