"""What `serve` does beside running the broker: its log, its signals, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from broker import __version__
from broker.app import Running, running
from broker.config import LogLevel, ServeSettings
from broker.ops.call_log import CallLog
from broker.ops.calls import CallObservers, about_call
from broker.ops.fact_log import FactLog
from broker.ops.health import HealthSnapshot
from broker.ops.log_of_libraries import log_of_libraries
from broker.ops.logs import Log
from broker.ops.metrics import Metrics
from broker.ops.spans import Spans, current_trace_id
from broker.ops.tracing import tracing
from broker.outside import Telling
from broker.store.home import HomeDiffersError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def until_signalled(work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work` to its end, or cancels it, once, at the first SIGINT or SIGTERM.

    Later signals change nothing: what still holds up the end is a pair that nobody else has
    (law 3), and whoever must end that sends SIGKILL.
    """
    stopping = asyncio.Event()

    async def guarded() -> None:
        await work()
        stopping.set()

    with _signals(stopping.set):
        async with asyncio.TaskGroup() as task_group:
            working = task_group.create_task(guarded(), name="work")
            await stopping.wait()
            working.cancel()


@contextmanager
def _signals(told: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class _HealthLog:
    """Writes a line when readiness, or what is not good, is another than before."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: tuple[bool, dict[str, str]] | None = None

    def changed(self, snapshot: HealthSnapshot) -> None:
        bad = {each.name: each.last_error for each in snapshot.checks if not each.is_good}
        # At the start nothing has been asked yet, which is nothing to tell.
        if self._known != (snapshot.is_ready, bad) and all(
            each.age is not None for each in snapshot.checks
        ):
            self._known = (snapshot.is_ready, bad)
            level = LogLevel.WARNING if bad else LogLevel.INFO
            self._log.event("health_changed", level=level, ready=snapshot.is_ready, not_good=bad)


@asynccontextmanager
async def broker(settings: ServeSettings, log: Log) -> AsyncIterator[Running]:
    """Runs a broker with its log and metrics as long as the context lasts. Raises as `running`."""
    log.event("settings_loaded", settings=settings.redacted())
    for warning in settings.warnings():
        log.event("settings_warning", level=LogLevel.WARNING, warning=warning)
    metrics = Metrics()
    metrics.watch_log(lambda: log.lost)
    with log_of_libraries(log), _telling_of_the_end(log):
        async with (
            tracing(settings.otlp_endpoint, home=settings.home) as spans,
            running(settings, _telling(log, metrics, spans)) as started,
        ):
            grpc_address = f"{settings.grpc_address.host}:{started.grpc_port}"
            log.event("broker_started", version=__version__, grpc=grpc_address, ops=started.ops_url)
            started.health.on_change(_HealthLog(log).changed)
            try:
                yield started
            finally:
                log.event("broker_draining", held=len(started.service.holdings))


def _telling(log: Log, metrics: Metrics, spans: Spans | None) -> Telling:
    log.tell_about(lambda: about_call(current_trace_id))
    calls = CallObservers((metrics, CallLog(log)))
    return Telling(
        log=FactLog(log),
        metrics=metrics,
        calls=calls,
        spans=spans,
        logs_tokens=log.takes(LogLevel.DEBUG),
    )


@contextmanager
def _telling_of_the_end(log: Log) -> Iterator[None]:
    try:
        yield
    finally:  # what a signal stops is cancelled
        log.event("broker_stopped")


async def serve(settings: ServeSettings, log: Log) -> None:
    """Runs until SIGINT or SIGTERM, and ends in order.

    Raises:
        HomeDiffersError: the database is another broker's. Others as `running`.
    """
    refusals: list[HomeDiffersError] = []

    async def work() -> None:
        async with broker(settings, log) as started:
            refusals.append(await started.refused)

    await until_signalled(work)
    if refusals:
        raise refusals[0]
