"""The blocking client, forks and threads, with the fixture that services use."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from broker.client import BlockingTokenClient, BrokerUnreachable, ReauthRequired, TokenClient
from broker.testing import FakeTokenBroker
from support.waiting import until

TOLD = "this client was made before a fork: make one in the child process"


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


def test_any_number_of_threads_share_one_call(fake_token_broker: FakeTokenBroker) -> None:
    fake_token_broker.connect("acme")
    with BlockingTokenClient(fake_token_broker.address) as client, ThreadPoolExecutor(16) as pool:
        tokens = list(pool.map(client.get, ["acme"] * 200))

    assert len({each.value for each in tokens}) == 1
    assert len(fake_token_broker.asked) == 1


def test_a_blocking_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        BlockingTokenClient("localhost:1").get("acme")


def test_a_blocking_call_ends_at_its_deadline() -> None:
    with BlockingTokenClient("127.0.0.1:9") as client, pytest.raises(BrokerUnreachable):
        client.get("acme", timeout=0.2)


async def test_the_fixture_serves_asynchronous_tests_too(
    fake_token_broker: FakeTokenBroker,
) -> None:
    fake_token_broker.connect("acme")
    async with TokenClient(fake_token_broker.address, watch=True) as client:
        await client.get("acme")

        generation = fake_token_broker.rotate("acme")

        def has_newer() -> bool:
            at_hand = client.cached("acme")
            return at_hand is not None and at_hand.generation == generation

        await until(has_newer)
    assert len(fake_token_broker.asked) == 1


async def test_an_async_client_is_of_no_other_threads_loop(
    fake_token_broker: FakeTokenBroker,
) -> None:
    fake_token_broker.connect("acme")
    async with TokenClient(fake_token_broker.address) as client:
        at_hand = await client.get("acme")

        def elsewhere() -> object:
            assert client.cached("acme") is at_hand
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                asyncio.run(client.get("other"))
            return client.cached("acme")

        assert await asyncio.to_thread(elsewhere) is at_hand


BLOCKING_FORKS = """
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

ASYNC_FORKS = """
import asyncio, os, sys
from broker.client import TokenClient

async def main():
    async with TokenClient(sys.argv[1], watch=True) as client:
        await client.get("acme")
        child = os.fork()
        if not child:
            assert client.cached("acme") is None
            try:
                await client.get("acme")
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print((await client.get("acme")).generation)

asyncio.run(main())
"""

FORKS_BEFORE = """
import os, sys
from broker.client import BlockingTokenClient

child = os.fork()
with BlockingTokenClient(sys.argv[1]) as client:
    print(client.get("acme").generation, flush=True)
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (BLOCKING_FORKS, [TOLD, "1"]),
        (ASYNC_FORKS, [TOLD, "1"]),
        # As servers do that fork their workers.
        (FORKS_BEFORE, ["1", "1"]),
    ],
    ids=["blocking", "async", "made after"],
)
def test_a_client_is_of_the_process_that_made_it(
    fake_token_broker: FakeTokenBroker, program: str, told: list[str]
) -> None:
    fake_token_broker.connect("acme")

    ended = subprocess.run(
        [sys.executable, "-c", program, fake_token_broker.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ended.stdout.splitlines() == told
