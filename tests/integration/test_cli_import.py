"""`import` against a broker over real gRPC: one token, many, some of them bad, and all again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from broker.domain.errors import RefreshTokenRejected
from broker.service.messages import ImportGrant
from support.cli import Ended, run_beside
from support.rpc import Served, serving
from support.waiting import until

SECRET = "fake-refresh-secret"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as running:
        running.broker.grants = {}
        yield running


def line(tenant: str, **changes: object) -> str:
    return json.dumps({"tenant": tenant, "refresh_token": f"{SECRET}-{tenant}", **changes}) + "\n"


async def take_over(served: Served, *arguments: str, stdin: str) -> Ended:
    environ = {"BROKER_ADDRESS": f"127.0.0.1:{served.port}"}
    ended = await run_beside("import", *arguments, environ=environ, stdin=stdin)
    assert SECRET not in ended.said
    return ended


def asked(served: Served) -> list[ImportGrant]:
    return [each for each in served.broker.asked if isinstance(each, ImportGrant)]


async def ping(served: Served) -> None:
    """Calls something else, and waits for the answer."""
    call: grpc.aio.UnaryUnaryMultiCallable[HealthCheckRequest, HealthCheckResponse]
    call = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    await call(HealthCheckRequest())


async def test_one_token_comes_from_standard_input(served: Served) -> None:
    ended = await take_over(served, "acme", "--json", stdin=f"{SECRET}\n")

    assert (ended.status, ended.document["tenant"]) == (0, "acme")
    (request,) = asked(served)
    assert request.refresh_token.reveal() == SECRET
    assert not request.replace


async def test_an_active_grant_is_replaced_when_asked(served: Served) -> None:
    await take_over(served, "acme", "--replace", stdin=SECRET)

    assert asked(served)[0].replace


@pytest.mark.parametrize("stdin", ["", "\n", f"{SECRET}\n{SECRET}\n", f"{SECRET}\u00e9"])
async def test_anything_but_one_token_is_wrong_use(served: Served, stdin: str) -> None:
    ended = await take_over(served, "acme", stdin=stdin)

    assert ended.status == 2
    assert "refresh_token: must be" in ended.stderr
    assert asked(served) == []


async def test_a_refused_token_fails(served: Served) -> None:
    served.broker.failure = RefreshTokenRejected(tenant="acme", error="invalid_grant")

    ended = await take_over(served, "acme", stdin=SECRET)

    assert ended.status == 1
    assert "REFRESH_TOKEN_REJECTED" in ended.stderr


async def test_one_token_can_be_tried_dry(served: Served) -> None:
    ended = await take_over(served, "acme", "--dry-run", stdin=SECRET)

    assert ended.status == 0
    assert asked(served) == []


async def test_every_line_says_what_became_of_it(served: Served) -> None:
    stdin = line("acme") + "\n" + f'{{"tenant": "bad", "{SECRET}": 1}}\n' + line("globex")

    ended = await take_over(served, "--file", "-", "--json", stdin=stdin)

    told = {each["line"]: each["outcome"] for each in ended.documents}
    assert ended.status == 1
    assert told == {1: "imported", 3: "invalid", 4: "imported"}
    assert "2 imported" in ended.stderr
    assert "1 invalid" in ended.stderr


async def test_good_lines_alone_end_with_zero(served: Served) -> None:
    ended = await take_over(served, "--file", "-", stdin=line("acme") + line("globex"))

    assert ended.status == 0
    assert sorted(ended.stdout.splitlines()) == [
        "line 1  acme  imported  generation 1",
        "line 2  globex  imported  generation 1",
    ]


async def test_the_same_file_may_be_given_again(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "grants.ndjson"
    path.write_text(line("acme") + line("globex", replace=True))

    first = await take_over(served, "--file", str(path), "--json", stdin="")
    again = await take_over(served, "--file", str(path), "--json", stdin="")

    assert (first.status, again.status) == (0, 0)
    assert len(asked(served)) == 4
    assert served.broker.grants.keys() == {"acme", "globex"}


async def test_a_refusal_of_one_fails_no_other(served: Served) -> None:
    served.broker.failure = RefreshTokenRejected(tenant="acme", error="invalid_grant")

    ended = await take_over(served, "--file", "-", "--json", stdin=line("acme") + line("globex"))

    assert ended.status == 1
    assert [each["reason"] for each in ended.documents] == ["REFRESH_TOKEN_REJECTED"] * 2


async def test_a_dry_run_checks_all_and_calls_nobody(served: Served) -> None:
    stdin = line("acme") + line("globex", scopes=["no scope"])

    ended = await take_over(served, "--file", "-", "--dry-run", "--json", stdin=stdin)

    told = {each["tenant"]: each["outcome"] for each in ended.documents}
    assert ended.status == 1
    assert told == {"acme": "valid", "globex": "invalid"}
    assert asked(served) == []


async def test_a_dry_run_needs_no_broker() -> None:
    ended = await run_beside("import", "--file", "-", "--dry-run", stdin=line("acme"))

    assert ended.status == 0


async def test_no_more_are_under_way_than_allowed(served: Served) -> None:
    stdin = "".join(line(f"t{n}") for n in range(5))

    async with asyncio.TaskGroup() as tasks, served.broker.hold():
        importing = tasks.create_task(
            take_over(served, "--file", "-", "--concurrency", "2", stdin=stdin), name="import"
        )
        await until(lambda: len(asked(served)) == 2)
        # A third would have been sent with the second: it would be there before this answer.
        await ping(served)
        assert len(asked(served)) == 2

    assert importing.result().status == 0
    assert len(asked(served)) == 5


async def test_nothing_to_do_is_no_failure(served: Served) -> None:
    ended = await take_over(served, "--file", "-", stdin="\n")

    assert (ended.status, ended.stdout) == (0, "")


async def test_a_missing_file_is_wrong_use(served: Served, tmp_path: Path) -> None:
    ended = await take_over(served, "--file", str(tmp_path / "nowhere"), stdin="")

    assert ended.status == 2
    assert "No such file" in ended.stderr
