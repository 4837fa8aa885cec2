"""The blocking client, with the fixture that services use in their own tests."""

from __future__ import annotations

import subprocess
import sys

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


FORKS = """
import os, sys
from broker.client import BlockingTokenClient

with BlockingTokenClient(sys.argv[1]) as client:
    client.get("acme")
    child = os.fork()
    if not child:
        try:
            client.get("acme")
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(client.get("acme").generation)
"""


def test_the_child_of_a_fork_is_told_to_make_its_own(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme")

    told = subprocess.run(
        [sys.executable, "-c", FORKS, fake_token_broker.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()

    assert told == ["this client was made before a fork: make one in the child process", "1"]
