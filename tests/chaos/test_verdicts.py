"""The judge of the chaos finds what is wrong, and lets pass what nobody could have kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict, Unpack

import pytest

from broker.domain.grant import GrantState, Reauth, ReauthCause, TokenPair
from broker.domain.secret import AccessToken, RefreshToken, Secret
from broker.sandbox.authorization_server import Presented
from broker.sandbox.grants import Grant as Installation
from broker.sandbox.grants import Pair
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.settings import DEMO_CLIENT
from chaos.calls import Call
from chaos.cases import Allowance, Case, Place
from chaos.verdicts import Row, judge
from support.grants import some_grant
from support.onboarding import Customer, new_company

A_SECOND: Final = timedelta(seconds=1)
BEGIN: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REAUTH: Final = {cause: Reauth(cause=cause, since=BEGIN) for cause in ReauthCause}


class Answer(TypedDict, total=False):
    """What a caller is told."""

    access_token: str
    is_degraded: bool
    reason: str
    cause: str


class Told:
    """A tenant whose pair Pleo has rotated as often as a test says."""

    def __init__(self) -> None:
        self.sandbox = Sandbox()
        self.case = Case(
            fault="a fault",
            mode="strict",
            customer=Customer(tenant="acme", company=new_company(self.sandbox)),
        )
        self.installation: Installation = self.sandbox.server.realm.ledger.open(
            client_id=DEMO_CLIENT.client_id, company=self.case.customer.company, scopes=()
        )
        self._now = BEGIN
        self._issue()

    def _issue(self) -> None:
        number = self.installation.generation + 1
        pair = Pair(
            access_token=f"fake-access-{number}",
            refresh_token=f"fake-refresh-{number}",
            access_expires_at=BEGIN + timedelta(minutes=15),
            refresh_expires_at=BEGIN + timedelta(days=60),
            parent=number - 1 or None,
        )
        self.sandbox.server.realm.ledger.add(self.installation, pair)

    def shown(self, generation: int) -> None:
        """Presents a generation's refresh token to a strict Pleo, one second later."""
        self._now += A_SECOND
        is_current = generation == self.installation.generation
        presented = Presented(
            kind="refresh_token",
            company=self.case.customer.company,
            grant=self.installation.number,
            generation=generation,
            standing="current" if is_current else "superseded",
        )
        entry = self.sandbox.record.arrived(presented, via="token", now=self._now)
        entry.outcome = "rotated" if is_current else "refused"
        entry.finished_at = self._now
        if is_current:
            self._issue()
        else:
            entry.has_killed = self.installation.end("shown again")

    def answered(self, **fields: Unpack[Answer]) -> None:
        """Takes note of what a caller was told, who asked one second after all that was shown."""
        call = Call(tenant="acme", replica="broker-1", asked_at=self._now + A_SECOND)
        self.case.calls.append(replace(call, **fields))

    def row(self, generation: int, cause: ReauthCause | None = None) -> Row:
        """Returns what the database holds: the pair of a generation, or a cause to consent."""
        pair = TokenPair(
            access_token=AccessToken(Secret(f"fake-access-{generation}")),
            refresh_token=RefreshToken(Secret(f"fake-refresh-{generation}")),
            generation=generation,
        )
        grant = some_grant(
            generation=generation,
            pair=pair,
            state=GrantState.REAUTH_REQUIRED if cause else GrantState.ACTIVE,
            reauth=REAUTH[cause] if cause else None,
        )
        return Row(grant=grant, flips=int(cause is not None))


@pytest.fixture
def told() -> Told:
    return Told()


def kill(case: Case, place: Place) -> None:
    case.allowance, case.place = Allowance.PROCESS, place


def test_a_rotation_that_is_stored_is_good(told: Told) -> None:
    told.shown(1)
    told.answered(access_token="fake-access-2")

    assert judge(told.case, told.row(2), told.sandbox).is_good


def test_a_pair_that_the_database_lacks_is_lost(told: Told) -> None:
    told.shown(1)

    assert judge(told.case, told.row(1), told.sandbox).lost == 1


def test_a_dead_token_shown_again_counts_and_flips(told: Told) -> None:
    told.shown(1)
    told.shown(1)

    verdict = judge(told.case, told.row(1, ReauthCause.ROTATION_LOST), told.sandbox)

    assert (verdict.superseded, verdict.lost, verdict.flipped) == (1, 1, 1)


def test_a_kill_on_the_wire_excuses_one_pair_with_its_cause(told: Told) -> None:
    kill(told.case, Place.SENDING)
    told.shown(1)
    told.shown(1)
    told.answered(reason="REAUTH_REQUIRED", cause="ROTATION_LOST")

    verdict = judge(told.case, told.row(1, ReauthCause.ROTATION_LOST), told.sandbox)

    assert verdict.is_good
    assert (verdict.excused, verdict.ending) == (1, "ROTATION_LOST")


def test_a_kill_elsewhere_excuses_nothing(told: Told) -> None:
    kill(told.case, Place.SETTLED)
    told.shown(1)
    told.shown(1)

    verdict = judge(told.case, told.row(1, ReauthCause.ROTATION_LOST), told.sandbox)

    assert (verdict.superseded, verdict.lost, verdict.flipped) == (1, 1, 1)


def test_a_lost_pair_is_no_customer_who_left(told: Told) -> None:
    kill(told.case, Place.SENDING)
    told.shown(1)
    told.shown(1)

    verdict = judge(told.case, told.row(1, ReauthCause.EXPIRED_OR_REVOKED), told.sandbox)

    assert (verdict.flipped, verdict.wrong) == (1, 1)


def test_a_living_grant_that_must_consent_again_is_flipped(told: Told) -> None:
    told.answered(reason="REAUTH_REQUIRED", cause="ROTATION_LOST")

    verdict = judge(told.case, told.row(1, ReauthCause.ROTATION_LOST), told.sandbox)

    assert (verdict.flipped, verdict.wrong) == (1, 1)


@pytest.mark.parametrize(("is_degraded", "wrong"), [(False, 1), (True, 0)])
def test_a_dead_token_may_be_handed_out_only_as_degraded(
    told: Told, *, is_degraded: bool, wrong: int
) -> None:
    told.shown(1)
    told.answered(access_token="fake-access-1", is_degraded=is_degraded)

    assert judge(told.case, told.row(2), told.sandbox).wrong == wrong


@pytest.mark.parametrize(
    ("reason", "wrong"), [("INTERNAL_ERROR", 1), ("TENANT_NOT_FOUND", 1), ("STORE_UNAVAILABLE", 0)]
)
def test_only_patience_may_be_asked_of_callers(told: Told, reason: str, wrong: int) -> None:
    told.answered(reason=reason)

    assert judge(told.case, told.row(1), told.sandbox).wrong == wrong
