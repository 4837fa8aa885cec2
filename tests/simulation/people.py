"""Who wants something of the broker: callers, customers who consent or leave, operators."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.domain.errors import BrokerError
from broker.domain.grant import Grant
from broker.domain.guard import Release
from broker.domain.secret import AccessToken, AuthorizationCode
from broker.service.guard import Released
from broker.service.messages import (
    CompleteAuthorization,
    ImportGrant,
    RevokeGrant,
    ServedToken,
    StartAuthorization,
    StartedAuthorization,
)
from broker.service.running import Service
from simulation.cast import Cast
from simulation.plan import LONGEST_CONSENT, Act
from simulation.process import Gone, Process
from simulation.serving import DEFECT, Asked
from support.consent_service import BINDING, WEB
from support.service import virtual_now

_BUDGETS: Final = (0.2, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Make calls of whichever process there is."""

    cast: Cast
    companies: dict[str, str]
    """By tenant."""

    left: set[str]
    """Tenants whose customer ended a grant at Pleo."""

    async def act(self, act: Act) -> None:
        """Does what an act says."""
        process = self.cast.on(act.slot)
        if process is None:
            return
        match act.what:
            case "get":
                budget = _BUDGETS[int(act.choice * len(_BUDGETS))]
                await self.get(process, act.tenant, seconds=budget)
            case "rejected":
                await self._report(process, act)
            case "consent":
                await self._consent(process, act)
            case "revoke":
                await self._revoke(process, act)
            case "import":
                await self._import(process, act)
            case "confirm" | "discard":
                await self.decide(process, Release[act.what.upper()])
            case _:
                self._leave(act)

    async def get(
        self, process: Process, tenant: str, *, seconds: float, rejected: int | None = None
    ) -> ServedToken | Exception | Gone:
        """Asks for a token, and has the answer judged."""
        budget = timedelta(seconds=seconds)
        asked = Asked(
            process=process, tenant=tenant, budget=budget, at=asyncio.get_running_loop().time()
        )

        async def call(service: Service) -> ServedToken:
            try:
                told: ServedToken = await service.broker.get_access_token(
                    tenant, rejected_generation=rejected, budget=budget
                )
            except Exception as error:
                self._hear(asked, error)
                raise
            self._hear(asked, told)
            return told

        return await process.ask(call)

    def _hear(self, asked: Asked, told: ServedToken | Exception) -> None:
        if asked.process.is_dead or asked.process.is_paused:
            return  # nobody hears it, or not now
        self.cast.story.tell(asked.process.name, f"tells a caller: {_in_words(told)}")
        self.cast.serving.judge(asked, told)

    async def _report(self, process: Process, act: Act) -> None:
        row = self.cast.fleet.world.rows.get(act.tenant)
        if row is not None and row.grant.generation:
            rejected = row.grant.generation - int(act.choice * 1.3)
            await self.get(process, act.tenant, seconds=10.0, rejected=rejected)

    async def _consent(self, process: Process, act: Act) -> None:
        request = StartAuthorization(tenant=act.tenant, caller=WEB, session_binding=BINDING)
        started = await process.ask(lambda service: service.broker.start_authorization(request))
        if not isinstance(started, StartedAuthorization):
            return
        await asyncio.sleep(act.choice * LONGEST_CONSENT)
        company = self.companies[act.tenant]
        code = self.cast.fleet.pleo.consent(started.authorization_uri, company=company)
        self.cast.story.tell("-", f"the customer of {act.tenant} consents")
        async with asyncio.TaskGroup() as browsers:
            # A browser that loads its page again completes twice, elsewhere perhaps.
            for slot in self.cast.plan.slots[: 1 + (act.choice > 0.7)]:
                complete = self._complete(slot, act, started.state, code)
                browsers.create_task(complete, name="a browser")

    async def _complete(self, slot: str, act: Act, state: str, code: AuthorizationCode) -> None:
        request = CompleteAuthorization(
            tenant=act.tenant, caller=WEB, state=state, session_binding=BINDING, result=code
        )
        process = self.cast.on(slot)
        if process is not None:
            made = await process.ask(lambda service: service.broker.complete_authorization(request))
            self._told(process, "completes", made)

    async def _revoke(self, process: Process, act: Act) -> None:
        request = RevokeGrant(tenant=act.tenant, caller=WEB, reason="over", at_provider=False)
        made = await process.ask(lambda service: service.broker.revoke_grant(request))
        self._told(process, "revokes", made)

    async def _import(self, process: Process, act: Act) -> None:
        brought = self.cast.fleet.pleo.connect(self.companies[act.tenant])
        is_living = act.choice < 0.5
        lifetime = timedelta(seconds=self.cast.plan.lifetime)
        access_token: AccessToken | None = brought.access_token if is_living else None
        request = ImportGrant(
            tenant=act.tenant,
            caller=WEB,
            refresh_token=brought.refresh_token,
            replace=True,
            access_token=access_token,
            expires_at=virtual_now() + lifetime if is_living else None,
        )
        made = await process.ask(lambda service: service.broker.import_grant(request))
        self._told(process, "imports", made)

    async def decide(self, process: Process, release: Release) -> None:
        """Ends the guard's hold, as an engineer does."""
        self.cast.commits.guard.decided(release)
        made = await process.ask(
            lambda service: service.broker.release_guard(release, by="on-call", reason="a story")
        )
        self.cast.story.tell(process.name, f"is told to {release.value}: {_in_words(made)}")
        if isinstance(made, Exception) and not isinstance(made, BrokerError):
            self.cast.story.break_law(DEFECT, repr(made))

    def _leave(self, act: Act) -> None:
        self.left.add(act.tenant)
        self.cast.story.tell("-", f"the customer of {act.tenant} disconnects at Pleo")
        self.cast.fleet.pleo.sandbox.server.disconnect(company=self.companies[act.tenant])

    def _told(self, process: Process, what: str, made: Grant | Exception | Gone) -> None:
        self.cast.story.tell(process.name, f"{what}: {_in_words(made)}")
        if isinstance(made, Exception) and not isinstance(made, BrokerError):
            self.cast.story.break_law(DEFECT, repr(made))


def _in_words(told: ServedToken | Grant | Released | Exception | Gone) -> str:
    match told:
        case Released():
            return f"{told.released} released, {told.remaining} left"
        case ServedToken():
            return f"generation {told.generation}{', degraded' if told.is_degraded else ''}"
        case Grant():
            return f"{told.state}, generation {told.generation}"
        case BrokerError():
            return told.reason
        case _:
            return type(told).__name__
