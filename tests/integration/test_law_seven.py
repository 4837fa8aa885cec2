"""The scanner's eyes: a canary is found in every medium, in every form (law 7).

That no secret is found there is asserted where a pytest process ends (`tests/conftest.py`), and by
`make chaos`. The canary is not in their ledger, and goes with what it was planted in.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

import grpc
import pytest
import pytest_asyncio
import redis.asyncio
from prometheus_client import CollectorRegistry, Info, generate_latest

from broker.dev.rundir import RunDirectory
from broker.dev.servers import postgres_server, valkey_server
from broker.domain.facts import FlightStarted
from broker.ops.tracing import tracing
from broker.store.migrate import migrate
from support import media
from support.fleet import Fleet, fleet
from support.law_seven import Part
from support.onboarding import connect, execute, new_customer
from support.pleo import window
from support.provider_worlds import provider_world
from support.rpc import Failure
from support.scanner import Scanner
from support.secret_forms import ENCODINGS, Encoding, forms

CANARY = "a-canary-Zq4v+W8mK/x2Lb+T7nR/fYc3+/~="
"""With so much to escape that no long part looks the same when URL-encoded."""

PLANTED = " ".join(form.decode() for form in forms(CANARY))

PLANT = """
    INSERT INTO grant_events
    (tenant, actor, call, reason, state_before, state_after, generation)
    VALUES ('planted', '', '', $1, '', '', 1)
"""

STORED = (media.DUMP, media.FILES, media.WAL, media.VALKEY, media.RDB)


def found(parts: Iterable[Part]) -> Mapping[str, set[Encoding]]:
    """Returns in which forms the canary lies, by medium."""
    scanner, forms_in = Scanner({CANARY: "canary"}), defaultdict[str, set[Encoding]](set)
    for medium, content in parts:
        forms_in[medium] |= {hit.encoding for hit in scanner.hits(medium, content)}
    return forms_in


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def brokers(run: RunDirectory) -> AsyncIterator[Fleet]:
    """One broker on stores of its own, a tenant, and the canary wherever one can be planted."""
    async with (
        postgres_server(run, name="pg-canary", fsync=False) as postgres,
        valkey_server(run, name="valkey-canary", tcp=True) as valkey,
    ):
        await migrate(postgres.url)
        async with fleet(postgres.url, valkey.url, run) as brokers:
            first = await brokers.started()
            await connect(brokers, first, new_customer(brokers.sandbox))
            await execute(postgres.url, PLANT, PLANTED)
            async with redis.asyncio.from_url(valkey.url) as client:
                await client.set("planted", PLANTED)
            with first.log.open("a") as log:
                log.write(PLANTED)
            async with tracing(brokers.traces.url, home="planted") as spans:
                assert spans is not None
                spans.begin(PLANTED, ()).end(code="OK", reason="", tenant=None)
            yield brokers


@pytest.fixture
def planted_process() -> Iterator[int]:
    """A process that has it in its arguments and its environment."""
    command = [sys.executable, "-c", "print(flush=True), input()", PLANTED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env={"PLANTED": PLANTED}) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        yield popen.pid
        popen.communicate(b"\n")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_canary_is_found_wherever_a_fleet_writes(brokers: Fleet) -> None:
    forms_in = found(await brokers.media())

    for medium in (*STORED, media.LOGS, media.TRACES):
        assert forms_in[medium] == set(ENCODINGS), medium
    assert {media.PAGES, media.ARGUMENTS, media.ENVIRONMENT} <= forms_in.keys()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_fleet_that_hides_nothing_hides_the_secrets(brokers: Fleet) -> None:
    secrets = {each.value: each.kind for each in brokers.sandbox.server.realm.mint.kept}
    scanner = Scanner(secrets)

    parts = list(await brokers.media())
    hits = [hit for part in parts for hit in scanner.hits(*part)]

    assert media.TRACES in {medium for medium, _ in parts}
    assert set(secrets.values()) >= {"access_token", "refresh_token", "code", "code_verifier"}
    assert hits == []


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc tells of processes")
def test_a_canary_is_found_in_arguments_and_environment(planted_process: int) -> None:
    forms_in = found(media.of_processes([planted_process]))

    assert forms_in == {media.ARGUMENTS: set(ENCODINGS), media.ENVIRONMENT: set(ENCODINGS)}


def test_a_canary_is_found_in_metrics() -> None:
    registry = CollectorRegistry()
    Info("planted", "Planted.", registry=registry).info({"canary": PLANTED})

    assert found([(media.PAGES, generate_latest(registry))])[media.PAGES] == set(ENCODINGS)


@pytest.mark.parametrize("trailer", ["grpc-status-details-bin", "x-planted"])
def test_a_canary_is_found_in_a_status(trailer: str) -> None:
    value = PLANTED.encode() if trailer.endswith("-bin") else PLANTED
    bad = grpc.StatusCode.INTERNAL
    in_trailer = Failure(code=bad, message="", trailers={trailer: value})
    in_message = Failure(code=bad, message=PLANTED, trailers={})

    for failure in (in_trailer, in_message):
        assert found([("statuses", failure.said)])["statuses"] == set(ENCODINGS)


def test_a_canary_is_found_in_what_the_core_shows_of_itself() -> None:
    living = [FlightStarted(tenant=PLANTED, flight=1)]

    assert found(media.of_core())[media.REPRS] == set(ENCODINGS)
    assert living


async def test_what_the_core_holds_of_a_pair_shows_no_secret() -> None:
    async with provider_world("sandbox") as world:
        exchange = await world.code()
        answer = await world.provider.present(exchange, window())

        scanner = Scanner({each.value: each.kind for each in world.sandbox.server.realm.mint.kept})
        parts = list(media.of_core())

    assert type(answer).__name__ in "".join(str(content) for _, content in parts)
    assert [hit for part in parts for hit in scanner.hits(*part)] == []
