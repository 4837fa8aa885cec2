"""The blocking client, with the fixture that services use in their own tests."""

from __future__ import annotations

import pytest

from broker.client import BlockingTokenClient, ReauthRequired
from broker.testing import FakeTokenBroker


def test_a_thread_uses_a_token_until_consent_is_needed(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme")
    with BlockingTokenClient(fake_token_broker.address) as client:
        first = client.get("acme")
        assert client.get("acme") is first
        assert first.value == fake_token_broker.access_token("acme")

        fake_token_broker.require_reauth("acme")
        with pytest.raises(ReauthRequired):
            client.report_rejected("acme", first.generation)
    assert len(fake_token_broker.asked) == 2
