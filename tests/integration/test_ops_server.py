"""The ops address over real HTTP: probes, metrics, and how it comes and goes."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from broker.config import Address
from broker.ops.health import Check, CheckResult, Health, Need
from broker.ops.metrics import Metrics
from broker.ops.server import Shown, ops_server
from support.facts import KINDS, THE_TENANT, example_of
from support.status import some_view
from support.waiting import until

FREE_PORT = Address(host="127.0.0.1", port=0)

SOON_BLOCKED = timedelta(seconds=1.5)
"""Three beats: enough for a loop that goes on, on a machine that is busy."""

# As Prometheus 3 asks.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@dataclass(slots=True)
class Ops:
    """A server that runs, what it shows, and a client of it."""

    http: httpx.AsyncClient
    health: Health
    metrics: Metrics

    async def get(self, path: str, *, accept: str | None = None) -> httpx.Response:
        return await self.http.get(path, headers={} if accept is None else {"Accept": accept})


def shown_by(ops: Ops) -> Shown:
    return Shown(health=ops.health, registry=ops.metrics.registry, status=some_view)


@dataclass(slots=True)
class Postgres:
    """Something to check."""

    finds: CheckResult = field(default_factory=lambda: CheckResult(details={"version": "18.1"}))
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def probe(self) -> CheckResult:
        self.is_asked.set()
        await self.may_answer.wait()
        return self.finds


@asynccontextmanager
async def _serving(postgres: Postgres) -> AsyncIterator[Ops]:
    metrics = Metrics()
    check = Check(
        name="postgres",
        probe=postgres.probe,
        needed_for=frozenset({Need.SERVE, Need.PERSIST, Need.REFRESH}),
    )
    health = Health([check], observer=metrics)
    health.on_change(metrics.health_changed)
    async with AsyncExitStack() as stack:
        shown = Shown(
            health=health,
            registry=metrics.registry,
            status=lambda: some_view(health=health.snapshot()),
        )
        url = await stack.enter_async_context(
            ops_server(FREE_PORT, shown, blocked_after=SOON_BLOCKED)
        )
        client = httpx.AsyncClient(base_url=url, trust_env=False)
        http = await stack.enter_async_context(client)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        task = tasks.create_task(health.run(), name="health")
        stack.callback(task.cancel)
        await postgres.is_asked.wait()
        yield Ops(http=http, health=health, metrics=metrics)


@pytest.fixture
async def postgres() -> Postgres:
    """Answers nothing until it may."""
    return Postgres()


@pytest.fixture
async def hanging(postgres: Postgres) -> AsyncIterator[Ops]:
    """A server whose one check has been asked and has not answered."""
    async with _serving(postgres) as ops:
        yield ops


@pytest.fixture
async def ops(hanging: Ops, postgres: Postgres) -> Ops:
    """A server that is ready."""
    postgres.may_answer.set()
    await until(lambda: hanging.health.is_ready)
    return hanging


async def test_a_replica_that_is_ready_says_so(ops: Ops) -> None:
    answer = await ops.get("/readyz")

    assert (answer.status_code, answer.text) == (200, "ready\n")


async def test_it_lives_while_a_check_hangs_and_is_not_ready(hanging: Ops) -> None:
    alive, ready = await hanging.get("/livez"), await hanging.get("/readyz")

    assert (alive.status_code, alive.text) == (200, "alive\n")
    assert (ready.status_code, ready.text) == (503, "not ready: postgres\n")


class Prober(threading.Thread):
    """Asks for a path from outside the event loop, until the answer is another than 200."""

    def __init__(self, url: httpx.URL, path: str) -> None:
        super().__init__(name="a prober")
        self._url = url.join(path)
        self.answer: httpx.Response | None = None

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=20) as client:
            while (answer := client.get(self._url)).status_code == 200:
                pass
            self.answer = answer


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/livez", "the event loop is blocked for"),
        ("/readyz", "not ready: the event loop does not answer"),
        ("/statusz", "not ready: the event loop does not answer"),
    ],
)
async def test_a_loop_that_is_really_blocked_is_told(ops: Ops, path: str, said: str) -> None:
    prober = Prober(ops.http.base_url, path)
    prober.start()

    prober.join()  # blocks the loop until the prober has seen it

    assert prober.answer is not None
    assert prober.answer.status_code == 503
    assert prober.answer.text.startswith(said)


async def test_it_lives_again_once_the_loop_goes_on(ops: Ops) -> None:
    prober = Prober(ops.http.base_url, "/livez")
    prober.start()
    prober.join()

    async with asyncio.timeout(20):
        while (answer := await ops.get("/livez")).status_code != 200:
            assert answer.text.startswith("the event loop is blocked")


async def test_metrics_are_told_while_the_loop_is_blocked(ops: Ops) -> None:
    told = Prober(ops.http.base_url, "/livez")
    told.start()
    told.join()

    metrics = httpx.get(ops.http.base_url.join("/metrics"), trust_env=False)  # noqa: ASYNC210 - blocks the loop on purpose

    assert metrics.status_code == 200


async def test_what_is_bad_is_named(hanging: Ops, postgres: Postgres) -> None:
    postgres.finds = CheckResult(error="SCHEMA_TOO_OLD")
    postgres.may_answer.set()
    await until(lambda: hanging.health.snapshot().check("postgres").age is not None)

    ready = await hanging.get("/readyz")

    assert (ready.status_code, ready.text) == (503, "not ready: postgres SCHEMA_TOO_OLD\n")


async def test_a_replica_that_drains_lives_and_is_not_ready(ops: Ops) -> None:
    ops.health.drain()

    alive, ready = await ops.get("/livez"), await ops.get("/readyz")
    assert alive.status_code == 200
    assert (ready.status_code, ready.text) == (503, "not ready: stopping\n")


async def test_everything_that_is_known_is_told_to_who_asks(ops: Ops) -> None:
    answer = await ops.get("/readyz?verbose")

    told = answer.json()
    age = told["checks"]["postgres"].pop("age_seconds")
    assert answer.status_code == 200
    assert age >= 0
    assert told == {
        "ready": True,
        "draining": False,
        "can_serve": True,
        "can_refresh": True,
        "can_persist": True,
        "checks": {
            "postgres": {
                "name": "postgres",
                "healthy": True,
                "needed_for": ["persist", "refresh", "serve"],
                "last_error": None,
                "last_error_age_seconds": None,
                "details": {"version": "18.1"},
            }
        },
    }


async def test_a_drain_is_told_to_who_asks(ops: Ops) -> None:
    ops.health.drain()

    answer = await ops.get("/readyz?verbose")

    told = answer.json()
    assert answer.status_code == 503
    assert (told["ready"], told["draining"], told["can_refresh"]) == (False, True, False)
    assert told["checks"]["postgres"]["healthy"]


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain;version=0.0.4"])
async def test_metrics_are_text_for_who_asks_for_nothing_else(ops: Ops, accept: str | None) -> None:
    answer = await ops.get("/metrics", accept=accept)

    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "token_broker_ready" in families


async def test_metrics_are_openmetrics_for_prometheus(ops: Ops) -> None:
    answer = await ops.get("/metrics", accept=PROMETHEUS)

    families = {family.name for family in openmetrics_families(answer.text)}  # type: ignore[no-untyped-call]  # has no types
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    assert "token_broker_ready" in families


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "text/plain; version=", ";;=,"]
)
async def test_a_wish_that_cannot_be_read_is_none(ops: Ops, accept: str) -> None:
    answer = await ops.get("/metrics", accept=accept)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


async def test_metrics_tell_of_health_and_of_no_tenant(ops: Ops) -> None:
    for kind in KINDS:
        ops.metrics.observe(example_of(kind))

    shown = (await ops.get("/metrics")).text

    assert "token_broker_ready 1.0\n" in shown
    assert 'token_broker_dependency_up{dependency="postgres"} 1.0\n' in shown
    assert "token_broker_defects_total 1.0\n" in shown
    assert THE_TENANT not in shown


async def test_the_page_is_shown_with_nothing_to_run_or_load(ops: Ops) -> None:
    answer = await ops.get("/statusz")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<h1>" in answer.text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz/postgres", "/docs"])
async def test_there_is_nothing_else_to_be_found(ops: Ops, path: str) -> None:
    assert (await ops.get(path)).status_code == 404


async def test_nothing_can_be_changed(ops: Ops) -> None:
    answers = [await ops.http.post(path) for path in ("/livez", "/readyz", "/metrics", "/statusz")]

    assert [answer.status_code for answer in answers] == [405] * 4


async def test_signals_stay_those_of_the_process() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    async with _serving(Postgres()):
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert during == before


async def test_a_port_that_is_taken_is_an_error(ops: Ops) -> None:
    taken = Address(host="127.0.0.1", port=ops.http.base_url.port or 0)

    said = f"cannot listen on {taken} \\(BROKER_OPS_ADDRESS\\): .* in use .*"
    with pytest.raises(OSError, match=f"^{said}$"):
        async with ops_server(taken, shown_by(ops)):
            pass


async def test_clients_that_stay_do_not_hold_up_the_end() -> None:
    async with _serving(Postgres()) as ops:
        host, port = ops.http.base_url.host, ops.http.base_url.port
        idle, idle_out = await asyncio.open_connection(host, port)
        half, half_out = await asyncio.open_connection(host, port)
        idle_out.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        half_out.write(b"GET /livez HTTP/1.1\r\n")
        await idle.readuntil(b"alive\n")

    for reader, writer in ((idle, idle_out), (half, half_out)):
        assert await _rest(reader) == b""
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        # What a server that had not yet read all that was sent ends a connection by.
        return b""


async def test_nobody_is_answered_after_the_end() -> None:
    async with _serving(Postgres()) as ops:
        url = ops.http.base_url

    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
