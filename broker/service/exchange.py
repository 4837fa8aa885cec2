"""Exchanging a code: claim with the state spent, present once, learn whose it is, store.

Runs in a task of the app: a browser that goes away changes nothing. If it fails, an earlier grant
is as it was, as far as Pleo tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from broker.domain.answers import Answer, Misconfigured, NotProcessed, Refused, Rotated, Unknown
from broker.domain.authorization import Authorization
from broker.domain.backoff import FIRST
from broker.domain.claims import Claimer
from broker.domain.consent_writes import claim_consent, drop_consented, store_consented
from broker.domain.decision import Decision, Why
from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CodeRejected,
    ExchangeOutcomeUnknown,
    ProviderRejectedClient,
    ProviderUnavailable,
    SubjectAlreadyConnected,
)
from broker.domain.escrow import Escrow
from broker.domain.grant import Attempt, AttemptKind, Grant, ScopesSource
from broker.domain.history import AttemptOutcome
from broker.domain.outcomes import SUCCESS, outcome_of, required_subject, subject_problem
from broker.domain.refresh_writes import Issue
from broker.domain.requests import ExchangeRequest
from broker.domain.secret import AuthorizationCode, RefreshToken
from broker.ports import Beside, Conclude, Presentation, Spend, Unspend
from broker.service.claim import Claim
from broker.service.consenting import Consenting, KnownScopes, closing
from broker.service.endings import error_of
from broker.service.endings import outcome_of as attempt_outcome
from broker.service.rows import Act, Reading
from broker.service.settle import Claimed, Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A code that came back with a state that may be spent."""

    authorization: Authorization
    code: AuthorizationCode
    code_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Presented:
    """A code that was presented, and what Pleo said."""

    exchange: Exchange
    claimed: Claimed
    presentation: Presentation

    @property
    def authorization(self) -> Authorization:
        """What was started."""
        return self.exchange.authorization


class Exchanger:
    """Exchanges codes."""

    def __init__(self, consenting: Consenting) -> None:
        """`consenting`: what exchanges and imports share."""
        self._consenting = consenting

    async def exchange(self, exchange: Exchange) -> Grant:
        """Returns the new grant, as it was stored.

        Raises:
            BesideNotAppliedError: the state was spent by somebody else meanwhile.
            BrokerError: no grant; the outcome is kept for repeated calls.
        """
        authorization = exchange.authorization
        verifier = authorization.code_verifier
        if verifier is None:
            raise AuthorizationStateInvalid(tenant=authorization.tenant)
        claimed = await self._claimed(exchange)
        request = ExchangeRequest(
            code=exchange.code, redirect_uri=authorization.redirect_uri, code_verifier=verifier
        )
        presentation = await self._consenting.present(claimed, request)
        made = await self._settle(
            _Presented(exchange=exchange, claimed=claimed, presentation=presentation)
        )
        if isinstance(made, BrokerError):
            raise made
        return made

    async def _claimed(self, exchange: Exchange) -> Claimed:
        claim = _claim(exchange)

        async def prepare(_: Reading) -> Claim:
            return claim

        return await self._consenting.claim(exchange.authorization.tenant, prepare)

    async def _settle(self, presented: _Presented) -> Grant | BrokerError:
        answer = presented.presentation.answer
        # A refresh token alone is a grant: its access token comes with the first refresh.
        if isinstance(answer, Rotated) and answer.refresh_token:
            return await self._store(presented, answer, answer.refresh_token)
        return await self._fail(presented, _error_of(presented.authorization.tenant, answer))

    async def _store(
        self, presented: _Presented, rotated: Rotated, refresh_token: RefreshToken
    ) -> Grant | BrokerError:
        authorization, claimed = presented.authorization, presented.claimed
        required = required_subject(
            claimed.reading.grant,
            expected=authorization.expected_subject,
            allow_change=authorization.allow_subject_change,
        )
        issued = await self._consenting.identified(
            claimed,
            presented.presentation,
            rotated=rotated,
            presented=refresh_token,
            otherwise=KnownScopes(scopes=authorization.scopes, source=ScopesSource.REQUESTED),
            is_required=required is not None,
        )
        problem = subject_problem(authorization.tenant, required=required, actual=issued.subject)
        if problem is not None:
            return await self._fail(presented, problem, subject=issued.subject)
        return await self._commit(presented, issued)

    async def _commit(self, presented: _Presented, issued: Issue) -> Grant | BrokerError:
        authorization, claimed = presented.authorization, presented.claimed

        def decide(reading: Reading) -> Decision:
            return store_consented(reading.grant, claimed.attempt, issued, now=reading.now)

        ending = Ending(
            decide=decide,
            outcome=AttemptOutcome.ROTATED,
            presentation=presented.presentation,
            beside=Conclude(state_hash=authorization.state_hash, outcome=SUCCESS),
            holds_pair=True,
            escrow=Escrow(
                tenant=authorization.tenant,
                attempt=claimed.attempt,
                issued=issued,
                state_hash=authorization.state_hash,
            ),
            act=Act(
                actor=authorization.caller,
                call="GrantService/CompleteAuthorization",
                is_administrative=True,
            ),
        )
        try:
            written = await self._consenting.settle(claimed, ending)
        except SubjectAlreadyConnected as error:
            return await self._fail(presented, error, subject=issued.subject)
        if written.not_allowed in {None, Why.ALREADY}:
            return written.reading.grant
        # A later consent or a revocation is in the row: this one came too late.
        late = ExchangeOutcomeUnknown(tenant=authorization.tenant)
        return await self._fail(
            presented, late, subject=issued.subject, outcome=AttemptOutcome.STALE
        )

    async def _fail(
        self,
        presented: _Presented,
        error: BrokerError,
        *,
        subject: str | None = None,
        outcome: AttemptOutcome | None = None,
    ) -> BrokerError:
        """Ends an attempt that stores no pair. `subject`: whose tokens came, where it is known."""
        mine, answer = presented.claimed.attempt, presented.presentation.answer
        beside = _remember(presented.authorization.state_hash, answer, error)
        # An outcome is kept whoever has the row by now. A state that was made good again may have
        # been spent anew since, and is not touched twice.
        even_late = isinstance(beside, Conclude)

        def drop(grant: Grant) -> Decision:
            return drop_consented(grant, mine, subject=subject)

        ending = Ending(
            decide=closing(mine, answer, even_late=even_late, dropping=drop),
            outcome=outcome or attempt_outcome(answer),
            presentation=presented.presentation,
            beside=beside,
            error=error_of(answer),
        )
        await self._consenting.settle(presented.claimed, ending)
        return error


def _claim(exchange: Exchange) -> Claim:
    def decide(grant: Grant, claimer: Claimer, reading: Reading) -> Decision:
        return claim_consent(grant, claimer, now=reading.now)

    def spend(attempt: Attempt) -> Beside:
        return Spend(
            state_hash=exchange.authorization.state_hash,
            code_hash=exchange.code_hash,
            attempt_number=attempt.number,
        )

    return Claim(kind=AttemptKind.EXCHANGE, decide=decide, beside=spend)


def _remember(state_hash: bytes, answer: Answer, error: BrokerError) -> Beside:
    # A code that never left can come again: then the state is as before.
    if isinstance(answer, NotProcessed):
        return Unspend(state_hash=state_hash)
    return Conclude(state_hash=state_hash, outcome=outcome_of(error))


def _error_of(tenant: str, answer: Answer) -> BrokerError:
    match answer:
        case Refused(error=error):
            return CodeRejected(tenant=tenant, error=error)
        case Misconfigured(error=error):
            return ProviderRejectedClient(tenant=tenant, error=error)
        case NotProcessed(retry_after=retry_after):
            return ProviderUnavailable(
                "Pleo cannot be reached, or asks us to wait: come back with the same code",
                tenant=tenant,
                retry_after=retry_after or FIRST,
            )
        case Rotated() | Unknown():
            # Tokens without a refresh token are no grant, and the code is used.
            return ExchangeOutcomeUnknown(tenant=tenant)
        case _:
            assert_never(answer)
