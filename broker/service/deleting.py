"""The step of a revocation at Pleo: deleting the installation, while nobody else is at the tenant.

It "revokes all access and refresh tokens for the client", so that it would end a newer consent with
the old one. So it claims the row as whoever presents does, and until it is over no consent begins.
What remains: a deletion whose answer was lost may be carried out after its deadline, and the same
company may be connected under another tenant, where that is allowed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from broker.domain.claims import Claimer
from broker.domain.consent_writes import claim_deletion
from broker.domain.decision import Decision
from broker.domain.errors import (
    KeyUnavailable,
    ProviderUnavailable,
    RecordUnreadable,
    RefreshOutcomeUnknown,
    StoreUnavailable,
)
from broker.domain.freshness import Freshness, access_token_of, freshness
from broker.domain.grant import Attempt, AttemptKind, Grant, UnreadablePair
from broker.domain.refresh_writes import let_go
from broker.domain.secret import AccessToken
from broker.domain.times import SEND_BUDGET
from broker.ports import Provider
from broker.service.claim import Claim, Claims
from broker.service.rows import Act, Proposal, Reading, Rows
from broker.service.settle import Claimed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleting:
    """Deletes installations."""

    rows: Rows
    claims: Claims
    provider: Provider

    async def delete(self, revoked: Reading) -> Attempt:
        """Deletes the installation of a revoked grant that has kept its pair.

        Returns our attempt, which is on the row until the pair is destroyed: that ends it.

        Raises:
            ProviderUnavailable: Pleo has not confirmed, or no living token is left.
            RefreshOutcomeUnknown: a consent or a refresh is under way, or a consent came since; or
            no answer came, and nobody else comes before the attempt's deadline.
            StoreUnavailable, KeyUnavailable, RecordUnreadable: nothing was sent.
        """
        access_token = _living(revoked)
        claimed = await self._claimed(revoked)
        if _is_late(claimed):
            await self._let_go(claimed)
            raise _not_now(claimed.reading.grant.tenant)
        try:
            await self.provider.delete_installation(access_token)
        except ProviderUnavailable:
            await self._let_go(claimed)
            raise
        # Without an answer the attempt keeps its deadline: a consent that came before it might be
        # ended by what Pleo does late.
        return claimed.attempt

    async def _claimed(self, revoked: Reading) -> Claimed:
        generation = revoked.grant.generation

        def decide(grant: Grant, claimer: Claimer, current: Reading) -> Decision:
            return claim_deletion(grant, claimer, generation=generation, now=current.now)

        # As a refresh that sends nothing: whoever comes meanwhile waits for its end.
        claimed = await self.claims.claim(revoked, Claim(kind=AttemptKind.REFRESH, decide=decide))
        if isinstance(claimed, Reading):
            raise _not_now(claimed.grant.tenant)
        return claimed

    async def _let_go(self, claimed: Claimed) -> None:
        def propose(current: Reading) -> Proposal:
            return Proposal(decision=let_go(current.grant, claimed.attempt))

        # Where PostgreSQL is away it ends by itself, at its deadline.
        with suppress(StoreUnavailable):
            await self.rows.write(claimed.reading, propose, Act(call="let go"))


def _is_late(claimed: Claimed) -> bool:
    # A process that stood still must not delete in a consent's turn.
    elapsed = asyncio.get_running_loop().time() - claimed.started_at
    return elapsed > SEND_BUDGET.total_seconds()


def _not_now(tenant: str) -> RefreshOutcomeUnknown:
    # Of the reasons to come back later one that no channel obeys by itself: by then a consent may
    # be stored, which the repeated call would end.
    return RefreshOutcomeUnknown(
        "a consent or a refresh is under way, or came since: nothing was deleted at Pleo; "
        "look at the grant, and revoke again if that is still wanted",
        tenant=tenant,
    )


def _living(revoked: Reading) -> AccessToken:
    grant, access_token = revoked.grant, access_token_of(revoked.grant)
    if isinstance(grant.pair, UnreadablePair):
        raise _unreadable(grant.tenant, grant.pair)
    if access_token is None or freshness(grant, revoked.latest_now()) is Freshness.EXPIRED:
        raise ProviderUnavailable(
            "no living access token is left to delete the installation with: remove it in Pleo, "
            "and revoke without the step at Pleo to destroy the tokens",
            tenant=grant.tenant,
            metadata={"code": "access_token_expired"},
        )
    return access_token


def _unreadable(tenant: str, pair: UnreadablePair) -> KeyUnavailable | RecordUnreadable:
    if pair.is_key_missing:
        return KeyUnavailable("this replica lacks the key of the grant's tokens", tenant=tenant)
    return RecordUnreadable("the grant's tokens do not open", tenant=tenant)
