"""Taking over a refresh token that somebody else held, once.

The token is on record, sealed, before it is presented, so that the same token is never presented
again because a call is repeated. With an access token that still lives it is not presented at all:
the first rotation waits for that token's end, because until then others may be using it. Where Pleo
rotates it and the grant may not be stored (another company than expected), the record keeps the
newer token, which the next call with the old one presents: nothing received is lost (law 3).

What is to be done is decided in `import_plan.py`; here it is awaited.
"""

from __future__ import annotations

import asyncio

from broker.domain.answers import Rotated
from broker.domain.claims import Claimer
from broker.domain.consent_writes import claim_consent, store_consented
from broker.domain.decision import Decision, Unchanged, Why
from broker.domain.errors import (
    BrokerError,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
    SubjectAlreadyConnected,
)
from broker.domain.escrow import Escrow
from broker.domain.grant import AttemptKind, Grant
from broker.domain.history import AttemptOutcome
from broker.domain.imports import ALREADY_PRESENTED, OUTCOME_UNKNOWN, rotated_unstored, stored
from broker.domain.refresh_writes import Issue
from broker.domain.requests import RefreshRequest
from broker.ports import ConsentStore, Presentation, PutImport
from broker.service.claim import Claim
from broker.service.consenting import Consenting, is_abandoned
from broker.service.import_ending import ImportRecords, came_too_late, error_after, record_after
from broker.service.import_plan import (
    Brought,
    Plan,
    kept_issue,
    mismatch,
    plan_import,
    required_company,
)
from broker.service.rows import Act, BesideNotAppliedError, Reading
from broker.service.settle import Claimed, Ending


class Takeover:
    """One import under way."""

    _plan: Plan
    """Of the last claim that was prepared."""

    def __init__(self, consenting: Consenting, consents: ConsentStore, brought: Brought) -> None:
        """`brought`: the token."""
        self._consenting = consenting
        self._consents = consents
        self._brought = brought
        self._records = ImportRecords(consenting, consents)
        self._consent: int | None = None
        """Number of the tenant's last consent or revocation when this was asked for."""

        self._silent = (0, 0.0)
        """Number of an attempt whose owner fell silent, and when we first saw it."""

    async def run(self) -> Grant:
        """Returns the grant that the token made, now or before.

        Raises:
            InvalidRequest: the tenant's grant is active, and `replace` is not set.
            RefreshTokenRejected, SubjectMismatch, SubjectAlreadyConnected: no grant.
            RefreshOutcomeUnknown, RefreshInProgress, ProviderUnavailable, ProviderRejectedClient,
            StoreUnavailable, KeyUnavailable: nothing is decided yet; the same call goes on.
        """
        claimed = await self._claimed()
        if isinstance(claimed, Grant):
            return claimed
        made = await (self._keep if self._plan.keeps_living else self._present)(claimed)
        if isinstance(made, BrokerError):
            raise made
        return made

    async def _claimed(self) -> Claimed | Grant:
        tenant = self._brought.tenant
        try:
            return await self._consenting.claim(tenant, self._prepare)
        except BesideNotAppliedError:
            # Another tenant brought the same token at the same time, and was first.
            raise RefreshTokenRejected(tenant=tenant, error=ALREADY_PRESENTED) from None

    async def _prepare(self, reading: Reading) -> Claim | Grant:
        brought = self._brought
        found = await self._consents.find_import(brought.fingerprint)
        if found is not None:
            # The record is newer than the row may be: a grant that another replica has just made of
            # the token would look like one that ended.
            reading = await self._consenting.rows.read(brought.tenant)
        plan = plan_import(brought, found, reading)
        if isinstance(plan, Grant):
            return plan
        if self._consent is None:
            self._consent = reading.grant.consent_attempt
        if self._consent != reading.grant.consent_attempt:
            # While it waited, and `replace` was about what was there before (law 4).
            raise came_too_late(brought.tenant)
        self._plan = plan
        must_wait = self._must_wait(plan, reading)
        if plan.is_spent and not must_wait:
            raise RefreshTokenRejected(tenant=brought.tenant, error=OUTCOME_UNKNOWN)
        return _claim(plan, reading, must_wait=must_wait)

    def _must_wait(self, plan: Plan, reading: Reading) -> bool:
        """Whether somebody's attempt is live, which may be the last presentation of a spent token.

        Or a silent owner may still store what the same token was rotated to (law 3), or what a
        consent brought, which killed the token that is to be kept: no presentation would tell.
        Measured here, as the quarantine of a refresh, and only while PostgreSQL answers: a
        read that fails ends the import, and the next one begins anew.
        """
        attempt = reading.grant.attempt
        if attempt is not None and attempt.is_live(reading.now):
            return True
        may_matter = plan.presents_again or (plan.keeps_living and _is_consent(reading.grant))
        if not may_matter or not is_abandoned(reading.grant, reading.now):
            return False
        number, now = reading.grant.last_attempt, asyncio.get_running_loop().time()
        if self._silent[0] != number:
            self._silent = (number, now)
        return now - self._silent[1] < self._consenting.times.quarantine.total_seconds()

    async def _keep(self, claimed: Claimed) -> Grant | BrokerError:
        issued = kept_issue(self._brought, claimed.reading)
        return await self._store(claimed, issued, presentation=None)

    async def _present(self, claimed: Claimed) -> Grant | BrokerError:
        refresh_token, record = self._plan.refresh_token, self._plan.record
        request = RefreshRequest(refresh_token=refresh_token)
        presentation = await self._consenting.present(claimed, request)
        answer = presentation.answer
        if not isinstance(answer, Rotated):
            after = record_after(record, answer)
            await self._records.end(claimed, presentation, before=record, after=after)
            return error_after(claimed, answer)
        issued = await self._consenting.identified(
            claimed,
            presentation,
            rotated=answer,
            presented=refresh_token,
            otherwise=self._brought.known_scopes,
            is_required=required_company(self._brought, claimed.reading.grant) is not None,
        )
        return await self._store(claimed, issued, presentation=presentation)

    async def _store(
        self, claimed: Claimed, issued: Issue, *, presentation: Presentation | None
    ) -> Grant | BrokerError:
        problem = mismatch(self._brought, claimed.reading.grant, issued.subject)
        made = problem or await self._commit(claimed, issued, presentation=presentation)
        if isinstance(made, BrokerError):
            before = self._plan.record
            after = rotated_unstored(before, issued.refresh_token) if presentation else before
            is_late = presentation is not None and isinstance(made, RefreshOutcomeUnknown)
            await self._records.end(
                claimed, presentation, before=before, after=after, is_late=is_late
            )
        return made

    async def _commit(
        self, claimed: Claimed, issued: Issue, *, presentation: Presentation | None
    ) -> Grant | BrokerError:
        mine, fingerprint = claimed.attempt, self._brought.fingerprint

        def decide(reading: Reading) -> Decision:
            return store_consented(
                reading.grant, mine, issued, import_fingerprint=fingerprint, now=reading.now
            )

        ending = Ending(
            decide=decide,
            outcome=AttemptOutcome.ROTATED if presentation else AttemptOutcome.LET_GO,
            presentation=presentation,
            beside=PutImport(record=stored(self._plan.record)),
            holds_pair=True,
            escrow=Escrow(
                tenant=self._brought.tenant,
                attempt=mine,
                issued=issued,
                import_fingerprint=fingerprint,
                imported=self._plan.refresh_token,
            ),
            act=Act(
                actor=self._brought.request.caller,
                call="GrantService/ImportGrant",
                is_administrative=True,
            ),
        )
        try:
            written = await self._consenting.settle(claimed, ending)
        except SubjectAlreadyConnected as error:
            return error
        if written.not_allowed in {None, Why.ALREADY}:
            return written.reading.grant
        return came_too_late(self._brought.tenant)


def _claim(plan: Plan, seen: Reading, *, must_wait: bool) -> Claim:
    def decide(grant: Grant, claimer: Claimer, reading: Reading) -> Decision:
        if must_wait:
            return Unchanged(why=Why.ATTEMPT_LIVE)
        # A record is written with its row: what was found counts only while the row is the same.
        is_own = grant.attempt is not None and grant.attempt.attempt_id == claimer.attempt_id
        if reading.snapshot.version != seen.snapshot.version and not is_own:
            return Unchanged(why=Why.MOVED_ON)
        return claim_consent(grant, claimer, now=reading.now)

    return Claim(
        kind=AttemptKind.IMPORT,
        decide=decide,
        beside=lambda _: PutImport(record=plan.record),
        # Who waits would take one turn of the fleet's rate at each look.
        presents=not plan.keeps_living and not must_wait,
    )


def _is_consent(grant: Grant) -> bool:
    """Whether the row's attempt presents something else than the grant's own refresh token."""
    return grant.attempt is not None and grant.attempt.kind is not AttemptKind.REFRESH
