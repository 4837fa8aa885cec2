"""Judges a case when all is over: Pleo's record, the database and the callers' answers compared.

A pair may be lost only where `Allowance` and the evidence both say so: the process was struck when
it had sent and not yet settled, or Pleo answered nothing. Then, and only then, the dead token is
shown once more, and the customer may have to consent again, with the cause ROTATION_LOST.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.domain.grant import Grant, GrantState, ReauthCause, TokenPair
from broker.sandbox.grants import Grant as Installation
from broker.sandbox.record import Presentation
from broker.sandbox.sandbox import Sandbox
from chaos.calls import Call
from chaos.cases import Allowance, Case, Place

_PATIENCE: Final = frozenset(
    {
        "REFRESH_IN_PROGRESS",
        "REFRESH_OUTCOME_UNKNOWN",
        "PROVIDER_UNAVAILABLE",
        "STORE_UNAVAILABLE",
        "GRANT_HELD",
        # gRPC's own, of a connection that broke, or a process that stands still.
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
    }
)
"""What a caller may be told while things are being put right."""

_UNSETTLED: Final = frozenset({Place.SENDING, Place.ANSWERED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the database holds of a tenant."""

    grant: Grant
    flips: int
    """How often it became REAUTH_REQUIRED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong with a case; all zeros: nothing."""

    superseded: int
    lost: int
    flipped: int
    wrong: int
    late: int
    """Calls that a broker which nobody struck did not answer within the caller's deadline. Not
    counted as wrong: on a machine that is busy enough, anybody is late.
    """

    excused: int
    """Pairs that were lost, or given up and asked for again, and that nobody could have kept."""

    residue: int
    """Of those: presentations of a process that was stopped between its last check and the write,
    and made it when it woke. No client can close that window.
    """

    ending: str
    """How a case with an excused pair ended: the customer's cause to consent again, `retried`, or
    `stored late` by a process that slept.
    """

    why: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.superseded or self.lost or self.flipped or self.wrong)


def judge(case: Case, row: Row, sandbox: Sandbox) -> Verdict:
    """Returns the verdict."""
    judging = _Judging(case, row, sandbox)
    owner = case.owner.name if case.owner else ""
    why = [*judging.wrong_answers(), *case.notes, *judging.wrong_endings()]
    return Verdict(
        superseded=max(judging.superseded - judging.excused, 0),
        lost=max(judging.lost - judging.excused, 0),
        flipped=judging.flipped,
        wrong=len(why),
        late=sum(
            each.reason == "DEADLINE_EXCEEDED" and each.replica != owner for each in case.calls
        ),
        excused=judging.given_up,
        residue=judging.residue,
        ending=judging.ending,
        why=tuple(why),
    )


class _Judging:
    def __init__(self, case: Case, row: Row, sandbox: Sandbox) -> None:
        self._case = case
        self._row = row
        self._record = [
            each
            for each in sandbox.record.of(case.customer.company)
            if each.presented.kind == "refresh_token" and each.via == "token"
        ]
        self._ledger = sandbox.server.realm.ledger
        self._installation = next(
            each for each in self._ledger.grants if each.company == case.customer.company
        )
        self.excused = self._excused()

    @property
    def superseded(self) -> int:
        """Presentations of a superseded token."""
        return sum(each.was_superseded for each in self._record)

    @property
    def lost(self) -> int:
        """Pairs that Pleo made and the database does not know, and one that it takes for alive."""
        grant = self._row.grant
        unknown = self._installation.generation - grant.generation
        return max(unknown, int(grant.state is GrantState.ACTIVE and not self._holds_newest))

    @property
    def _holds_newest(self) -> bool:
        pair = self._row.grant.pair
        if not isinstance(pair, TokenPair) or pair.refresh_token is None:
            return False
        located = self._ledger.find_refresh_token(pair.refresh_token.reveal())
        return located is not None and located.generation == self._installation.generation

    @property
    def _is_alive(self) -> bool:
        return self._installation.ended is None

    def _excused(self) -> int:
        match self._case.allowance:
            case Allowance.NOBODY:
                return 0
            case Allowance.PROCESS:
                # The owner was the first to present, if it came to that.
                has_rotated = bool(self._record) and self._record[0].outcome == "rotated"
                is_excused = has_rotated and self._case.place in _UNSETTLED
                return max(int(is_excused), self.residue)
            case Allowance.PROVIDER:
                return sum(map(_is_unsaid, self._record))

    @property
    def residue(self) -> int:
        """Whether the owner presented when it woke, although it had made its last check before."""
        woken_at = self._case.woken_at
        return int(
            woken_at is not None
            and self._case.place is Place.SENDING
            and any(each.was_superseded and each.arrived_at >= woken_at for each in self._record)
        )

    @property
    def flipped(self) -> int:
        """How often the customer was told to consent again for no reason, or for a wrong one."""
        grant, flips = self._row.grant, self._row.flips
        if grant.state is not GrantState.REAUTH_REQUIRED and not flips:
            return 0
        if self._is_alive or not self.excused:
            return max(flips, 1)
        cause = grant.reauth.cause if grant.reauth else ReauthCause.ROTATION_LOST
        return int(cause is not ReauthCause.ROTATION_LOST)

    @property
    def given_up(self) -> int:
        """Excused pairs that were missed."""
        return min(max(self.lost, self.superseded), self.excused)

    def wrong_endings(self) -> list[str]:
        """Returns what is wrong with how it ended."""
        wrong = [] if self._case.is_told else ["its callers were never answered for good"]
        right = {"ROTATION_LOST"} if self._case.mode == "strict" else {"retried"}
        if self._case.is_paused:
            right |= {"stored late", *(["residue"] if self.residue else [])}
        if self.given_up and self.ending not in right:
            wrong.append(f"a lost pair ended as {self.ending}")
        return wrong

    @property
    def ending(self) -> str:
        """How it ended where a pair was lost."""
        if not self.given_up:
            return ""
        if self.residue:
            return "residue"
        grant = self._row.grant
        if grant.state is GrantState.REAUTH_REQUIRED and grant.reauth:
            return grant.reauth.cause.name
        return "retried" if self._is_alive and self._holds_newest else "stored late"

    def wrong_answers(self) -> list[str]:
        """Returns what callers were told and should not have been."""
        return [why for each in self._case.calls if (why := self._wrong(each))]

    def _wrong(self, call: Call) -> str:
        if call.access_token:
            is_dead = not call.is_degraded and self._was_dead(call)
            return "a dead token as a fresh one" if is_dead and not self._may_be_dead else ""
        if call.reason == "REAUTH_REQUIRED":
            is_right = not self._is_alive and self.excused and call.cause == "ROTATION_LOST"
            return "" if is_right else f"REAUTH_REQUIRED, {call.cause}"
        return "" if call.reason in _PATIENCE else call.reason

    @property
    def _may_be_dead(self) -> bool:
        """Whether Pleo ended the grant behind the back of a process that slept with its pair."""
        return self._case.is_paused and bool(self.excused) and not self._is_alive

    def _was_dead(self, call: Call) -> bool:
        located = self._ledger.find_access_token(call.access_token)
        if located is None:
            return True
        killers = [
            each
            for each in self._record
            if each.has_killed or _superseded(each, located.grant, located.generation)
        ]
        return any(each.finished_at and each.finished_at < call.asked_at for each in killers)


def _superseded(shown: Presentation, installation: Installation, generation: int) -> bool:
    """Whether this presentation made a pair that is newer than a generation."""
    made = shown.outcome == "rotated" and shown.presented.grant == installation.number
    parent = shown.presented.generation or 0
    return made and parent >= generation


def _is_unsaid(shown: Presentation) -> bool:
    return shown.outcome == "rotated" and (shown.is_delivered is not True or shown.status != 200)
