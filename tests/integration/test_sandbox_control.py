"""The control of the sandbox over HTTP, its record, and how it starts and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import httpx
import pytest

from broker.sandbox.faults import Delay, Hang, Hold
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from support.sandbox_client import (
    ACME,
    BASIC,
    BJERG,
    VERIFIER,
    SandboxClient,
    authorization_query,
    client_of,
)


async def told(client: SandboxClient, method: str, path: str, **order: object) -> httpx.Response:
    answer = await client.http.request(method, f"/sandbox/{path}", json=order)
    return answer.raise_for_status()


FAULTS: list[tuple[dict[str, object], int | None]] = [
    ({"kind": "refuse", "error": "invalid_scope", "status": 401}, 401),
    ({"kind": "rate_limit", "retry_after": "3"}, 429),
    ({"kind": "fail", "status": 504}, 504),
    ({"kind": "rubbish", "status": 404}, 404),
    ({"kind": "reset", "when": "after"}, None),
    ({"kind": "half", "cut": "close"}, None),
    ({"kind": "delay", "seconds": 0.001}, 200),
    ({"kind": "alter", "omit": ["scope"], "replace": {"expires_in": "9"}}, 200),
    ({"kind": "revoke"}, 400),
]


@pytest.mark.parametrize(("fault", "status"), FAULTS, ids=lambda value: str(value)[:30])
async def test_every_fault_is_ordered_over_http(
    client: SandboxClient, fault: dict[str, object], status: int | None
) -> None:
    tokens = await client.connected()
    await told(client, "POST", "faults", steps=[fault], grant_type="refresh_token", company=ACME)

    try:
        answered: int | None = (await client.refresh(tokens["refresh_token"])).status_code
    except httpx.TransportError:
        answered = None

    assert answered == status
    assert client.sandbox.record.presentations[-1].faults != ()


async def test_a_test_elsewhere_orders_events_without_sleeping(client: SandboxClient) -> None:
    tokens = await client.connected()
    await told(client, "POST", "faults", steps=[{"kind": "hold", "when": "after"}])

    async with asyncio.TaskGroup() as group:
        refresh = group.create_task(client.refresh(tokens["refresh_token"]))
        reached = await told(client, "GET", "wait?presentations=2&held=1&timeout=30")
        held = (await told(client, "GET", "held")).json()["held"]
        released = await told(client, "POST", "release", number=held[0]["number"])

    assert reached.json() == {"presentations": 2, "held": 1, "hung_up": 0, "finished": 1}
    assert held == [{"number": 1, "company": ACME, "why": "hold after"}]
    assert released.json() == {"released": 1}
    assert refresh.result().status_code == 200


async def test_what_does_not_come_is_waited_for_no_longer_than_asked(
    client: SandboxClient,
) -> None:
    answer = await client.http.get("/sandbox/wait", params={"presentations": 1, "timeout": 0.01})

    assert answer.status_code == 504
    assert answer.json()["presentations"] == 0


async def test_a_hanging_request_is_reset_over_http(client: SandboxClient) -> None:
    tokens = await client.connected()
    await told(client, "POST", "faults", steps=[{"kind": "hang"}])
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await told(client, "GET", "wait?held=1&timeout=30")

    await told(client, "POST", "release", then="reset")

    with pytest.raises(httpx.ReadError):
        await refresh


async def test_faults_are_listed_and_cleared(client: SandboxClient) -> None:
    await told(client, "POST", "faults", steps=[{"kind": "fail"}], times=None, company=BJERG)
    chance = {"probability": 0.5, "steps": [{"kind": "fail"}]}
    await told(client, "PUT", "dice", seed=1, chances=[chance])

    listed = (await told(client, "GET", "faults")).json()
    await told(client, "DELETE", "faults")
    cleared = (await told(client, "GET", "faults")).json()

    assert (listed["rules"][0]["company"], listed["rules"][0]["remaining"]) == (BJERG, None)
    assert listed["dice"]["chances"][0]["probability"] == 0.5
    assert (cleared["rules"], cleared["dice"]["chances"]) == ([], [])


@pytest.mark.parametrize(
    ("method", "path", "order", "complaint"),
    [
        ("POST", "faults", {"steps": [{"kind": "explode"}]}, "kind must be one of delay, hold"),
        ("POST", "faults", {"steps": [{"kind": "delay"}]}, "seconds"),
        ("POST", "faults", {"steps": [{"kind": "delay", "seconds": 1, "wen": 1}]}, "wen"),
        ("POST", "faults", {"steps": [{"kind": "refuse", "eror": "x"}]}, "eror"),
        ("POST", "faults", {"steps": [{"kind": "hold", "when": "later"}]}, "when"),
        ("POST", "faults", {"step": []}, "unknown: step"),
        ("PUT", "dice", {"seed": 1, "chances": [{"probability": 2, "steps": []}]}, "more than 1"),
        ("PATCH", "settings", {"mode": "gentle"}, "mode"),
        ("PATCH", "settings", {"clients": []}, "addresses of their own"),
        ("POST", "clients", {"client_id": "x", "client_secret": 7}, "client_secret"),
        ("POST", "release", {"then": "explode"}, "then"),
    ],
)
async def test_what_cannot_be_followed_is_refused_with_the_reason(
    client: SandboxClient, method: str, path: str, order: dict[str, object], complaint: str
) -> None:
    answer = await client.http.request(method, f"/sandbox/{path}", json=order)

    assert answer.status_code == 400
    assert complaint in answer.json()["error"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
async def test_what_is_no_object_is_refused(client: SandboxClient, content: bytes) -> None:
    assert (await client.http.post("/sandbox/faults", content=content)).status_code == 400


async def test_settings_change_while_it_runs(client: SandboxClient) -> None:
    changed = await told(client, "PATCH", "settings", mode="grace", access_token_lifetime=3)

    assert changed.json()["mode"] == "grace"
    assert changed.json()["access_token_lifetime"] == "PT3S"
    assert (await client.connected())["expires_in"] == 3


async def test_the_clock_is_put_forward(client: SandboxClient) -> None:
    tokens = await client.connected()

    await told(client, "POST", "advance", seconds=900)

    assert await client.try_on(tokens["access_token"]) == 401


async def test_a_company_withdraws(client: SandboxClient) -> None:
    tokens = await client.connected()

    assert (await told(client, "POST", "disconnect", company=ACME)).json() == {"ended": 1}
    assert await client.try_on(tokens["access_token"]) == 401


async def test_companies_and_clients_are_added(client: SandboxClient) -> None:
    urn = "urn:pleo:company:00000000-0000-4000-8000-0000000000ff"
    await told(client, "POST", "companies", urn=urn, name="New & Co")
    await told(
        client,
        "POST",
        "clients",
        client_id=BASIC[0],
        client_secret="fake-new-secret",
        redirect_uris=["http://localhost:8400/callback"],
    )

    code = await client.code(urn)

    assert (await client.exchange(code)).status_code == 401
    clients = await told(client, "GET", "clients")
    assert "fake-new-secret" not in clients.text
    assert urn in (await told(client, "GET", "companies")).text


async def test_the_record_counts_per_company_and_shows_no_secret(client: SandboxClient) -> None:
    acme = await client.connected(ACME)
    await client.connected(BJERG)
    await client.refresh(acme["refresh_token"])
    await client.refresh(acme["refresh_token"])
    await client.refresh("never-issued")

    record = await told(client, "GET", "record")

    totals, companies = record.json()["totals"], record.json()["companies"]
    assert (totals["presentations"], totals["exchanges"], totals["rotations"]) == (3, 2, 1)
    assert companies[ACME]["grants_killed_by_reuse"] == 1
    assert companies[ACME]["presentations_of_superseded"] == 1
    assert companies[BJERG] == {**companies[BJERG], "presentations": 0, "consents": 1}
    assert [p["presented"]["standing"] for p in record.json()["presentations"]] == [
        *("current", "current", "current", "superseded", "unknown")
    ]
    for secret in client.sandbox.server.realm.mint.kept:
        assert secret.value not in record.text


async def test_the_record_can_be_asked_about_one_company(client: SandboxClient) -> None:
    await client.connected(ACME)
    await client.connected(BJERG)

    record = await told(client, "GET", f"record?company={BJERG}")

    assert [p["presented"]["company"] for p in record.json()["presentations"]] == [BJERG]
    assert record.json()["totals"]["exchanges"] == 1


async def test_a_refused_client_has_presented_all_the_same(client: SandboxClient) -> None:
    tokens = await client.connected()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    await client.post(form, auth=(BASIC[0], "wrong"))

    entry = client.sandbox.record.presentations[-1]
    assert (entry.outcome, entry.error, entry.status) == ("refused", "invalid_client", 401)
    assert client.sandbox.record.counts(ACME).presentations == 1


async def test_every_secret_is_kept_for_scanners(client: SandboxClient) -> None:
    code = await client.code()
    tokens = (await client.exchange(code)).json()
    new = (await client.refresh(tokens["refresh_token"])).json()

    kept = (await told(client, "GET", "secrets")).json()["secrets"]

    values = {secret["value"] for secret in kept}
    assert values == {
        *(code, VERIFIER, BASIC[1]),
        *(tokens["access_token"], tokens["refresh_token"]),
        *(new["access_token"], new["refresh_token"]),
    }


async def test_a_reset_begins_again(client: SandboxClient) -> None:
    tokens = await client.connected()
    await told(client, "PATCH", "settings", mode="lenient")
    await told(client, "POST", "faults", steps=[{"kind": "fail"}])

    await told(client, "POST", "reset")

    assert (await client.refresh(tokens["refresh_token"])).status_code == 400
    assert (await told(client, "GET", "settings")).json()["mode"] == "strict"
    assert client.sandbox.record.presentations[-1].standing == "unknown"
    assert client.sandbox.room.progress.presentations == 1


@pytest.mark.parametrize("step", [Hold(), Hang(), Delay(seconds=60)])
async def test_it_stops_promptly_whatever_it_is_holding(step: Hold | Hang | Delay) -> None:
    async with sandbox_server() as sandbox, client_of(sandbox) as client:
        sandbox.faults.add(step)
        refresh = asyncio.create_task(client.refresh("never-issued"))
        waiting = asyncio.create_task(client.http.get("/sandbox/wait?presentations=9&timeout=60"))
        await sandbox.until(presentations=1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        sandbox.room.close()

        with pytest.raises(httpx.ReadError):
            await refresh
        assert (await waiting).status_code == 504
        assert loop.time() - start < 5


async def test_it_stops_although_a_request_is_half_sent() -> None:
    async with sandbox_server() as sandbox:
        host, port = sandbox.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        async with client_of(sandbox) as client:
            await client.http.get("/")

    assert await reader.read() == b""
    assert sandbox.record.presentations == []
    writer.close()
    await writer.wait_closed()


async def test_an_address_in_use_is_an_error_and_not_shared(sandbox: Sandbox) -> None:
    port = int(sandbox.url.rpartition(":")[2])

    with pytest.raises(OSError, match="in use"):
        async with sandbox_server(port=port):
            pass


async def test_signals_stay_the_processs_own() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async with sandbox_server():
        during = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    assert during == before


async def test_no_request_and_no_secret_is_logged(
    client: SandboxClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    tokens = await client.connected()
    client.sandbox.faults.add(Hold(when="after"))
    refresh = asyncio.create_task(client.refresh(tokens["refresh_token"]))
    await client.sandbox.until(held=1)
    client.sandbox.room.release(then="reset")
    with pytest.raises(httpx.ReadError):
        await refresh

    # The client of this test logs its own requests, which are none of the sandbox's doing.
    ours = [r for r in caplog.records if r.name.partition(".")[0] not in {"httpx", "httpcore"}]
    written = "".join([*(record.getMessage() for record in ours), *capfd.readouterr()])

    assert "/oauth/" not in written
    assert not any(kept.value in written for kept in client.sandbox.server.realm.mint.kept)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_says_what_it_is_and_ends_on_a_signal(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = (
        f"import asyncio; from broker.sandbox.server import serve; asyncio.run(serve(port={port}))"
    )
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env={**os.environ, "PYTHONPATH": "."},
        stderr=asyncio.subprocess.PIPE,
    )
    assert running.stderr is not None

    introduction = await running.stderr.readuntil(b"/sandbox/secrets)\n")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        page = await http.get(f"/oauth/authorize?{authorization_query()}")
    running.send_signal(number)

    assert await running.wait() == 0
    assert b"a test instrument, never Pleo" in introduction
    assert "asks for access" in page.text
    assert BASIC[1].encode() not in introduction
