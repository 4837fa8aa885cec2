"""CompleteAuthorization: who may complete, once, and the same result for whoever comes again.

A state is spent by whoever comes with it, rightly or wrongly (RFC 9700 §2.1, §4.7.1), and the same
code again gets the same result, joined where it is still under way. Only its hash is known here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import assert_never

from broker.domain.authorization import Admission, Authorization, Outcome, Return, admit
from broker.domain.backoff import FIRST
from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    ConsentDenied,
    ExchangeOutcomeUnknown,
    ProviderUnavailable,
    RefreshInProgress,
)
from broker.domain.grant import AttemptKind, AttemptPhase, Grant
from broker.domain.hashing import sha256
from broker.domain.outcomes import error_of, outcome_of
from broker.ports import ConsentStore
from broker.service.adoption import Adoption
from broker.service.consenting import landed
from broker.service.exchange import Exchange, Exchanger
from broker.service.fetch import POLL
from broker.service.flights import Flight, Flights
from broker.service.messages import AuthorizationDenied, CompleteAuthorization
from broker.service.news import News
from broker.service.rows import BesideNotAppliedError, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Completing:
    """Completes consents."""

    consents: ConsentStore
    rows: Rows
    exchanger: Exchanger
    flights: Flights[Grant]
    news: News
    adoption: Adoption
    longest_wait: float
    """For an exchange that is under way elsewhere, in seconds."""

    async def complete(self, request: CompleteAuthorization) -> Grant:
        """Returns the new grant; for the same state and code, the same again.

        Raises:
            ConsentError: no grant, start again. BrokerError: as `Exchanger.exchange`.
        """
        found = await self.consents.find(sha256(request.state))
        if found is None:
            raise AuthorizationStateInvalid(tenant=request.tenant)
        authorization, now = found
        admission = admit(authorization, _return_of(request), now)
        match admission:
            case Admission.INVALID:
                raise await self._spent(
                    authorization, AuthorizationStateInvalid(tenant=request.tenant)
                )
            case Admission.REPEATED:
                return await self._joined(authorization)
            case Admission.FIRST:
                return await self._first(authorization, request)
            case _:
                assert_never(admission)

    async def _first(self, authorization: Authorization, request: CompleteAuthorization) -> Grant:
        if isinstance(request.result, AuthorizationDenied):
            denied = ConsentDenied(tenant=request.tenant, error=request.result.error)
            raise await self._spent(authorization, denied)
        code = request.result
        exchange = Exchange(authorization=authorization, code=code, code_hash=sha256(code.reveal()))

        async def work(_: Flight[Grant]) -> Grant:
            return await self._exchange(exchange)

        flight_key = (authorization.state_hash, exchange.code_hash)
        return await landed(self.flights.join(flight_key, request.tenant, work))

    async def _joined(self, authorization: Authorization) -> Grant:
        flight = self.flights.find((authorization.state_hash, authorization.code_hash))
        return await (self._repeated(authorization) if flight is None else landed(flight))

    async def _exchange(self, exchange: Exchange) -> Grant:
        try:
            return await self.exchanger.exchange(exchange)
        except BesideNotAppliedError:
            # Another replica, or another code, was first.
            return await self._lost(exchange)

    async def _lost(self, exchange: Exchange) -> Grant:
        tenant = exchange.authorization.tenant
        found = await self.consents.find(exchange.authorization.state_hash)
        if found is None or _is_anothers(found[0], exchange):
            raise AuthorizationStateInvalid(tenant=tenant)
        return await self._repeated(found[0])

    async def _spent(self, authorization: Authorization, error: BrokerError) -> BrokerError:
        await self.consents.spend(authorization.state_hash, outcome_of(error))
        return error

    async def _repeated(self, authorization: Authorization) -> Grant:
        tenant = authorization.tenant
        give_up_at = asyncio.get_running_loop().time() + self.longest_wait
        while True:
            # In this order: an exchange that is over by then has left its outcome.
            is_under_way = await self._is_under_way(authorization)
            outcome = await self._outcome(authorization)
            if outcome is None and not is_under_way:
                # Its owner may have died with the pair in escrow.
                await self.adoption.adopt_all(tenant)
                outcome = await self._outcome(authorization)
            if outcome is not None:
                return await self._result(tenant, outcome)
            await self._wait(tenant, give_up_at, is_under_way=is_under_way)

    async def _wait(self, tenant: str, give_up_at: float, *, is_under_way: bool) -> None:
        if not is_under_way:
            raise ExchangeOutcomeUnknown(tenant=tenant)
        if asyncio.get_running_loop().time() >= give_up_at:
            raise RefreshInProgress("the exchange is under way: ask again", tenant=tenant)
        await self.news.wait(tenant, POLL)

    async def _outcome(self, authorization: Authorization) -> Outcome | None:
        found = await self.consents.find(authorization.state_hash)
        if found is None:
            return None
        if found[0].spent_at is None:
            # The code that we waited for never left, and can come again.
            raise ProviderUnavailable(
                "Pleo could not be reached: come back with the same code",
                tenant=authorization.tenant,
                retry_after=FIRST,
            )
        return found[0].outcome

    async def _is_under_way(self, authorization: Authorization) -> bool:
        reading = await self.rows.read(authorization.tenant)
        attempt, number = reading.grant.attempt, authorization.attempt_number
        # Not exactly the number: a claim whose acknowledgement was lost is made again, and has the
        # next one then. Another consent's exchange is waited for as well; nothing hangs on that.
        return (
            attempt is not None
            and number is not None
            and attempt.number >= number
            and attempt.kind is AttemptKind.EXCHANGE
            and attempt.phase is AttemptPhase.ARMED
            and attempt.is_live(reading.now)
        )

    async def _result(self, tenant: str, outcome: Outcome) -> Grant:
        error = error_of(outcome, tenant)
        if error is not None:
            raise error
        return (await self.rows.read(tenant)).grant


def _is_anothers(authorization: Authorization, exchange: Exchange) -> bool:
    # One that was made good again meanwhile is nobody's.
    return authorization.spent_at is not None and authorization.code_hash != exchange.code_hash


def _return_of(request: CompleteAuthorization) -> Return:
    result = request.result
    return Return(
        tenant=request.tenant,
        session_binding_hash=sha256(request.session_binding),
        caller=request.caller,
        code_hash=None if isinstance(result, AuthorizationDenied) else sha256(result.reveal()),
    )
