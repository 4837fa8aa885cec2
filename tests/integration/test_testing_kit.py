"""The test kit as a service's tests use it: each failure, by its reason alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.client import BlockingTokenClient, StoreUnavailable, TokenBrokerError
from broker.client.errors import BY_REASON
from broker.testing import FakeTokenBroker
from broker.testing.failures import RETRY_AFTER

REASONS = (
    *("CALLER_NOT_ALLOWED", "CALLER_RATE_LIMITED", "CALLER_UNAUTHENTICATED", "GRANT_HELD"),
    *("INTERNAL_ERROR", "INVALID_REQUEST", "KEY_UNAVAILABLE", "PROVIDER_REJECTED_CLIENT"),
    *("PROVIDER_UNAVAILABLE", "RECORD_UNREADABLE", "REFRESH_IN_PROGRESS"),
    *("REFRESH_OUTCOME_UNKNOWN", "SCOPE_MISSING", "STORE_UNAVAILABLE", "TENANT_NOT_FOUND"),
)

CONSENT_ONLY = {
    *("AUTHORIZATION_STATE_INVALID", "CODE_REJECTED", "CONSENT_DENIED"),
    *("EXCHANGE_OUTCOME_UNKNOWN", "REFRESH_TOKEN_REJECTED"),
    *("SUBJECT_ALREADY_CONNECTED", "SUBJECT_MISMATCH"),
}
"""Of GrantService, which the fake has not."""


def told(broker: FakeTokenBroker, tenant: str = "acme") -> TokenBrokerError:
    with (
        BlockingTokenClient(broker.address) as client,
        pytest.raises(TokenBrokerError) as failed,
    ):
        client.get(tenant)
    return failed.value


def test_the_kit_fails_in_every_way_that_a_caller_of_tokens_meets() -> None:
    assert {*REASONS, "REAUTH_REQUIRED"} == set(BY_REASON) - CONSENT_ONLY


@pytest.mark.parametrize("reason", REASONS)
def test_a_failure_is_the_clients_class_of_its_reason(
    fake_token_broker: FakeTokenBroker, reason: str
) -> None:
    fake_token_broker.connect("acme")
    fake_token_broker.fail("acme", reason)

    error = told(fake_token_broker)

    assert (type(error), error.reason) == (BY_REASON[reason], reason)
    assert error.retry_after in {None, RETRY_AFTER}


def test_an_outage_is_over_with_its_block(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme")
    with BlockingTokenClient(fake_token_broker.address) as client:
        with (
            fake_token_broker.outage("STORE_UNAVAILABLE"),
            pytest.raises(StoreUnavailable) as failed,
        ):
            client.get("acme")

        assert client.get("acme").generation == 1
    assert failed.value.tenant == "acme"


def test_a_channel_that_may_come_back_at_once_does(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme")
    fake_token_broker.fail("acme", "PROVIDER_UNAVAILABLE")

    error = told(fake_token_broker)

    assert (error.reason, error.retry_after) == ("PROVIDER_UNAVAILABLE", timedelta(0))
    assert len(fake_token_broker.asked) == 4


def test_no_lifetime_is_a_rotation_at_every_call(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme", lifetime=timedelta(0))
    with BlockingTokenClient(fake_token_broker.address) as client:
        generations = [client.get("acme").generation for _ in range(3)]

    assert generations == sorted(set(generations))


MISTAKES: dict[str, tuple[Callable[[FakeTokenBroker], object], str]] = {
    "no such reason": (lambda broker: broker.fail("acme", "GRANT_HOLD"), "is none of .*GRANT_HELD"),
    "reauth by name": (lambda broker: broker.fail("acme", "REAUTH_REQUIRED"), "require_reauth"),
    "not connected": (lambda broker: broker.rotate("acme"), "has not connected 'acme'"),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_a_mistake_of_a_test_is_told(fake_token_broker: FakeTokenBroker, which: str) -> None:
    make, told_so = MISTAKES[which]

    with pytest.raises((ValueError, LookupError), match=told_so):
        make(fake_token_broker)
