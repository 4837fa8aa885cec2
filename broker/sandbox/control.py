"""The control over HTTP: how other processes tell the sandbox what to do, and ask what it saw.

    GET    /sandbox/record[?company=URN]   presentations and counts
    GET    /sandbox/secrets                all secrets there ever were, for scanners
    GET    /sandbox/wait?presentations=N&held=N&hung_up=N&finished=N&timeout=SECONDS
                                           answers when so much has happened, else 504
    GET    /sandbox/held                   requests that wait; POST /sandbox/release lets them go
    GET    /sandbox/faults                 POST adds a rule, DELETE behaves again
    PUT    /sandbox/dice                   faults at random, from a seed
    GET    /sandbox/settings               PATCH changes rules
    GET    /sandbox/clients, companies     POST adds or changes one
    POST   /sandbox/disconnect             a company withdraws, or all of a client's
    POST   /sandbox/advance                puts the sandbox's clock forward
    POST   /sandbox/reset                  begins again

All in JSON; what cannot be followed is answered with 400 and why. Nobody is asked who they are:
there is nothing here worth having, and it listens on loopback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from http import HTTPStatus

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.sandbox.reading import (
    AdvanceOrder,
    DisconnectOrder,
    ReleaseOrder,
    RuleOrder,
    WaitOrder,
    read_as,
    read_dice,
    read_object,
    read_settings,
    read_step,
)
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import Client, Company
from broker.sandbox.waiting import Progress


def control_routes(sandbox: Sandbox) -> list[Route]:
    """List the routes of the control."""
    control, world = Control(sandbox), World(sandbox)
    return [
        Route("/sandbox/record", control.record),
        Route("/sandbox/secrets", control.secrets),
        Route("/sandbox/wait", control.wait),
        Route("/sandbox/held", control.held),
        Route("/sandbox/release", control.release, methods=["POST"]),
        Route("/sandbox/faults", control.faults),
        Route("/sandbox/faults", control.add_fault, methods=["POST"]),
        Route("/sandbox/faults", control.clear_faults, methods=["DELETE"]),
        Route("/sandbox/dice", control.throw, methods=["PUT"]),
        Route("/sandbox/settings", world.settings),
        Route("/sandbox/settings", world.change_settings, methods=["PATCH"]),
        Route("/sandbox/clients", world.clients),
        Route("/sandbox/clients", world.add_client, methods=["POST"]),
        Route("/sandbox/companies", world.companies),
        Route("/sandbox/companies", world.add_company, methods=["POST"]),
        Route("/sandbox/disconnect", world.disconnect, methods=["POST"]),
        Route("/sandbox/advance", world.advance, methods=["POST"]),
        Route("/sandbox/reset", world.reset, methods=["POST"]),
    ]


async def control_error(_request: Request, error: Exception) -> Response:
    """Answer what could not be followed."""
    return JSONResponse({"error": str(error)}, status_code=HTTPStatus.BAD_REQUEST)


class Control:
    """Faults, and what was seen."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Control `sandbox`."""
        self._sandbox = sandbox

    async def record(self, request: Request) -> Response:
        """Show presentations and what they add up to."""
        record, company = self._sandbox.record, request.query_params.get("company")
        shown = record.presentations if company is None else record.of(company)
        return _json(
            {
                "totals": record.counts(company),
                "companies": record.by_company(),
                "presentations": shown,
            }
        )

    async def secrets(self, _request: Request) -> Response:
        """List every secret."""
        return _json({"secrets": [asdict(kept) for kept in self._sandbox.server.realm.mint.kept]})

    async def wait(self, request: Request) -> Response:
        """Answer when so much has happened."""
        order = read_as(WaitOrder, request.query_params)
        goal = Progress(
            presentations=order.presentations,
            held=order.held,
            hung_up=order.hung_up,
            finished=order.finished,
        )
        has_come = await self._sandbox.room.reached(goal, timeout_seconds=order.timeout)
        status = HTTPStatus.OK if has_come else HTTPStatus.GATEWAY_TIMEOUT
        return _json(asdict(self._sandbox.room.progress), status)

    async def held(self, _request: Request) -> Response:
        """List the requests that wait."""
        waiting = self._sandbox.room.held.values()
        return _json(
            {"held": [{"number": h.number, "company": h.company, "why": h.why} for h in waiting]}
        )

    async def release(self, request: Request) -> Response:
        """Let them go on."""
        order = read_as(ReleaseOrder, read_object(await request.body()))
        released = self._sandbox.room.release(order.number, then=order.then)
        return _json({"released": released})

    async def faults(self, _request: Request) -> Response:
        """List the rules."""
        faults = self._sandbox.faults
        return _json({"rules": faults.rules, "dice": faults.dice})

    async def add_fault(self, request: Request) -> Response:
        """Add a rule."""
        order = read_as(RuleOrder, read_object(await request.body()))
        rule = self._sandbox.faults.add(
            *map(read_step, order.steps),
            times=order.times,
            endpoint=order.endpoint,
            grant_type=order.grant_type,
            company=order.company,
        )
        return _json({"number": rule.number}, HTTPStatus.CREATED)

    async def clear_faults(self, _request: Request) -> Response:
        """Behave again. What waits goes on waiting."""
        self._sandbox.faults.clear()
        return _json({})

    async def throw(self, request: Request) -> Response:
        """Let chance decide."""
        self._sandbox.faults.throw(read_dice(read_object(await request.body())))
        return _json({})


class World:
    """Rules, clients, companies, the clock."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Control `sandbox`."""
        self._sandbox = sandbox

    async def settings(self, _request: Request) -> Response:
        """Show the rules."""
        settings = asdict(self._sandbox.server.settings)
        return _json({n: v for n, v in settings.items() if n not in ("clients", "companies")})

    async def change_settings(self, request: Request) -> Response:
        """Change some rules, for what is issued and presented from now on."""
        server, fields = self._sandbox.server, read_object(await request.body())
        server.settings = read_settings(fields, current=server.settings)
        return await self.settings(request)

    async def clients(self, _request: Request) -> Response:
        """List the clients, without their secrets."""
        clients = self._sandbox.server.realm.clients.values()
        return _json({"clients": [{**asdict(client), "client_secret": "…"} for client in clients]})

    async def add_client(self, request: Request) -> Response:
        """Register one, or change its secret."""
        client = read_as(Client, read_object(await request.body()))
        self._sandbox.server.realm.add_client(client)
        return _json({}, HTTPStatus.CREATED)

    async def companies(self, _request: Request) -> Response:
        """List the companies."""
        return _json({"companies": [*self._sandbox.server.realm.companies.values()]})

    async def add_company(self, request: Request) -> Response:
        """Add one."""
        company = read_as(Company, read_object(await request.body()))
        self._sandbox.server.realm.add_company(company)
        return _json({}, HTTPStatus.CREATED)

    async def disconnect(self, request: Request) -> Response:
        """Withdraw."""
        order = read_as(DisconnectOrder, read_object(await request.body()))
        ended = self._sandbox.server.disconnect(company=order.company, client_id=order.client_id)
        return _json({"ended": ended})

    async def advance(self, request: Request) -> Response:
        """Put the clock forward."""
        order = read_as(AdvanceOrder, read_object(await request.body()))
        self._sandbox.advance(timedelta(seconds=order.seconds))
        return _json({"now": self._sandbox.now()})

    async def reset(self, _request: Request) -> Response:
        """Begin again."""
        self._sandbox.reset()
        return _json({})


def _json(fields: Mapping[str, object], status: HTTPStatus = HTTPStatus.OK) -> Response:
    body = TypeAdapter(object).dump_json(fields)
    return Response(body, status_code=status, media_type="application/json")
