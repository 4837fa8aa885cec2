"""What can be seen of brokers from outside: readiness, gRPC health, and alerts of a Prometheus.

A light is one thing that is good or bad, as `readyz redis` or `grpc ""`. Knows no fault.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import httpx
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from broker.dev.rundir import RunDirectory
from broker.dev.servers import free_port
from broker.rpc.health import DEPENDENCIES, SERVICES
from support.fleet import Fleet
from support.queries import RULES
from support.replica import Replica

POLL_SECONDS: Final = 0.25

WINDOW: Final = "10s"
"""Instead of the minutes over which rules look: twenty scrapes, and a fault outlives it."""

_PLEASE: Final = ("can_serve", "can_refresh", "can_persist")

Lights = Mapping[str, bool]


@dataclass(slots=True, kw_only=True)
class Seen:
    """What became of lights or alerts since a moment."""

    began_at: float = field(default_factory=time.monotonic)
    first: dict[str, float] = field(default_factory=dict)
    """By name of what went bad, after how many seconds it was seen so first."""

    def note(self, names: Iterable[str]) -> None:
        """Takes note of what is bad now."""
        for name in names:
            self.first.setdefault(name, time.monotonic() - self.began_at)


async def lights_of(brokers: Fleet, replica: Replica) -> dict[str, bool]:
    """Returns all of a broker's lights; only readiness where it speaks TLS."""
    try:
        answer = await brokers.asked(replica, "/readyz?verbose")
    except httpx.TransportError as error:
        return {f"ops address {type(error).__name__}": False}
    if not answer.text.startswith("{"):
        return {f"readyz says {answer.status_code} {answer.text[:60]!r}": False}
    told = answer.json()
    found = {f"readyz {name}": bool(each["healthy"]) for name, each in told["checks"].items()}
    found |= {name: bool(told[name]) for name in _PLEASE}
    if "readyz certificate" in found:
        return found
    with suppress(grpc.aio.AioRpcError):
        found |= {f"grpc {name or 'server'}": good for name, good in await _grpc_of(replica)}
    return found


async def _grpc_of(replica: Replica) -> list[tuple[str, bool]]:
    check = replica.first_channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answers = await asyncio.gather(
        *(check(HealthCheckRequest(service=name), timeout=5) for name in (*SERVICES, *DEPENDENCIES))
    )
    good = [each.status == HealthCheckResponse.SERVING for each in answers]
    return list(zip((*SERVICES, *DEPENDENCIES), good, strict=True))


async def bad_lights(brokers: Fleet, replicas: Iterable[Replica]) -> set[str]:
    """Returns the lights that are bad at any of these brokers."""
    found = await asyncio.gather(*(lights_of(brokers, each) for each in replicas))
    return {name for lights in found for name, good in lights.items() if not good}


_SAMPLE: Final = re.compile(r"^(token_broker_\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)


async def metrics_of(brokers: Fleet, replicas: Iterable[Replica]) -> dict[str, float]:
    """Returns the sums of all samples over the brokers, without buckets."""
    sums: dict[str, float] = {}
    for each in replicas:
        text = (await brokers.asked(each, "/metrics")).text
        for name, number in _SAMPLE.findall(text):
            if "_bucket" not in name and "_created" not in name:
                sums[name] = sums.get(name, 0.0) + float(number)
    return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """A Prometheus that looks at the brokers with our rules, in a hurry."""

    url: str
    http: httpx.AsyncClient
    targets: Path
    """The file in which Prometheus finds whom to look at."""

    def watch(self, replicas: Iterable[Replica]) -> None:
        """Lets it look at these brokers from now on."""
        hosts = [each.ops_url.removeprefix("http://") for each in replicas]
        written = self.targets.with_suffix(".new")
        written.write_text(json.dumps([{"targets": hosts}]))
        written.replace(self.targets)

    async def active(self) -> set[str]:
        """Returns the alerts whose expression holds; none without a Prometheus."""
        if not self.url:
            return set()
        told = (await self.http.get(f"{self.url}/api/v1/alerts")).json()
        return {each["labels"]["alertname"] for each in told["data"]["alerts"]}

    async def has_seen(self, count: int) -> None:
        """Waits until so many replicas are ready for it, one of which counts the grants."""
        found: list[object] = [] if self.url else [None]
        while not found:
            await asyncio.sleep(POLL_SECONDS)
            wanted = f"sum(token_broker_ready) == {count} and sum(token_broker_census_taken) > 0"
            told = await self.http.get(f"{self.url}/api/v1/query", params={"query": wanted})
            found = told.json()["data"]["result"]


def hurried(rules: str) -> str:
    """Returns our rules with seconds for minutes: windows of `WINDOW`, and no `for`."""
    read = yaml.safe_load(rules)
    for group in read["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", rule["expr"])
            rule.pop("for", None)
    return str(yaml.safe_dump(read))


@asynccontextmanager
async def alerts(
    folder: Path, replicas: Iterable[Replica], *, run: RunDirectory
) -> AsyncIterator[Alerts]:
    """Starts a Prometheus, where one is installed (Debian: prometheus), for these brokers."""
    program, targets = shutil.which("prometheus"), folder / "targets.json"
    async with httpx.AsyncClient(timeout=5) as http:
        if program is None:
            yield Alerts(url="", http=http, targets=targets)
            return
        port = free_port()
        made = Alerts(url=f"http://127.0.0.1:{port}", http=http, targets=targets)
        made.watch(replicas)
        with _running(program, folder, port) as popen:
            run.started(popen.pid)  # whatever becomes of this process
            await _until_ready(made, lambda: popen.poll() is None)
            yield made
        run.ended(popen.pid)


class _running:  # noqa: N801 - a context manager, used as a function
    """A Prometheus process, ended with the block."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        (folder / "rules.yaml").write_text(hurried(RULES.read_text()))
        (folder / "prometheus.yaml").write_text(_configuration())
        self._log = (folder / "prometheus.log").open("wb")
        self._popen = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._popen

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        self._popen.wait()
        self._log.close()


def _configuration() -> str:
    found = {"files": ["targets.json"], "refresh_interval": "1s"}
    return str(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules.yaml"],
                "scrape_configs": [{"job_name": "token-broker", "file_sd_configs": [found]}],
            }
        )
    )


async def _until_ready(made: Alerts, runs: Callable[[], bool]) -> None:
    while runs():
        with suppress(httpx.HTTPError):
            if (await made.http.get(f"{made.url}/-/ready")).is_success:
                return
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError("Prometheus ended")
