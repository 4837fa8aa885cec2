"""A fake of `FleetStore`. It passes the conformance suite of the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from broker.domain.breaker import RATE_LIMITED
from broker.domain.evidence import BREAKER_WINDOW, GUARD_WINDOW, Evidence
from broker.domain.fleet import FleetState
from broker.domain.grant import AttemptKind, Doubt, Grant, GrantState, ReauthCause
from broker.domain.history import AttemptOutcome, AttemptRecord, FleetAct
from broker.ports import AnsweredRefresh, FleetSnapshot, Guarded
from broker.store.fleet import ALIVE_FOR
from support.fake_world import FakeWorld

_DEFINITE: Final = frozenset({AttemptOutcome.REFUSED, AttemptOutcome.ROTATED, AttemptOutcome.STALE})

_PICKS: Final[Mapping[Guarded, Callable[[Grant, datetime], bool]]] = {
    Guarded.HELD: lambda grant, _: grant.state is GrantState.HELD,
    Guarded.CERTAIN: lambda grant, _: (
        grant.state is GrantState.HELD
        and grant.doubt is Doubt.NONE
        and grant.pair is not None
        and grant.reauth is not None
        and grant.reauth.cause is ReauthCause.EXPIRED_OR_REVOKED
    ),
    Guarded.BELIEVED: lambda grant, _: _is_kept(grant) and grant.quarantined_until is None,
    Guarded.GIVEN_UP: lambda grant, now: (
        _is_kept(grant) and grant.quarantined_until is not None and grant.quarantined_until > now
    ),
    Guarded.DEAD: lambda grant, now: (
        _is_kept(grant)
        and grant.reauth is not None
        and (grant.quarantined_until or grant.reauth.since + GUARD_WINDOW) <= now
    ),
}


class FakeFleetStore:
    """Upholds `FleetStore`."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def read(self) -> FleetSnapshot:
        await self._world.arrive("read fleet")
        seen = self._snapshot()
        await self._world.depart("read fleet")
        return seen

    async def apply(self, before: FleetSnapshot, after: FleetState) -> FleetSnapshot | None:
        await self._world.arrive("apply fleet")
        written = None
        if (before.version, before.live) == (self._world.fleet_version, self._world.live()):
            self._world.fleet = after
            self._world.fleet_version += 1
            written = self._snapshot()
        await self._world.depart("apply fleet")
        return written

    async def note(self, act: FleetAct) -> None:
        await self._world.arrive("note")
        self._world.acts.append(act)
        await self._world.depart("note")

    async def beat(self, replica: str, build: str) -> None:
        await self._world.arrive("beat")
        self._world.replicas[replica] = (build, self._world.now())
        await self._world.depart("beat")

    async def weigh(self, answered: AnsweredRefresh) -> Evidence:
        await self._world.arrive("weigh", answered.tenant)
        evidence = self._weighed(answered, self._world.now())
        await self._world.depart("weigh", answered.tenant)
        return evidence

    async def tenants(self, which: Guarded, *, limit: int) -> Sequence[str]:
        await self._world.arrive("tenants")
        now = self._world.now()
        picked = [row.grant for row in self._world.rows.values() if _PICKS[which](row.grant, now)]
        await self._world.depart("tenants")
        return [grant.tenant for grant in sorted(picked, key=_ORDERS[which])][:limit]

    def _snapshot(self) -> FleetSnapshot:
        world = self._world
        return FleetSnapshot(
            state=world.fleet,
            version=world.fleet_version,
            read_at=world.now(),
            alive=sum(world.now() - seen < ALIVE_FOR for _, seen in world.replicas.values()),
            live=world.live(),
        )

    def _weighed(self, answered: AnsweredRefresh, now: datetime) -> Evidence:
        counted_from = self._world.fleet.guard.counted_from
        others = [
            line
            for line in self._world.attempts
            if line.attempt.kind is AttemptKind.REFRESH
            and (line.tenant, line.attempt.number) != (answered.tenant, answered.number)
        ]
        recent = [
            line
            for line in others
            if line.ended_at > now - GUARD_WINDOW
            and (counted_from is None or counted_from > now or line.ended_at > counted_from)
        ]
        new = [line for line in others if line.ended_at > now - BREAKER_WINDOW]
        outcome = answered.outcome
        refused = _tenants(recent, answered, AttemptOutcome.REFUSED)
        return Evidence(
            at=now,
            refused_grants=len([each for each in refused if not self._was_in_doubt(each)])
            + answered.is_sure_refusal,
            answered=sum(line.outcome in _DEFINITE for line in recent) + (outcome in _DEFINITE),
            unknown_grants=len(_tenants(new, answered, AttemptOutcome.UNKNOWN))
            + (outcome is AttemptOutcome.UNKNOWN),
            limited_grants=len(
                {each.tenant for each in new if each.error == RATE_LIMITED} - {answered.tenant}
            )
            + (answered.error == RATE_LIMITED),
            sent=sum(_was_sent(line) for line in new) + 1,
        )

    def _was_in_doubt(self, tenant: str) -> bool:
        row = self._world.rows.get(tenant)
        reauth = row.grant.reauth if row else None
        return reauth is not None and reauth.cause is ReauthCause.ROTATION_LOST


def _tenants(
    lines: Sequence[AttemptRecord], answered: AnsweredRefresh, outcome: AttemptOutcome
) -> set[str]:
    return {line.tenant for line in lines if line.outcome is outcome} - {answered.tenant}


def _was_sent(line: AttemptRecord) -> bool:
    return line.http_status is not None or line.outcome is AttemptOutcome.UNKNOWN


def _is_kept(grant: Grant) -> bool:
    return grant.state is GrantState.REAUTH_REQUIRED and grant.pair is not None


def _refused_at(grant: Grant) -> float:
    assert grant.reauth is not None
    return grant.reauth.since.timestamp()


def _kept_until(grant: Grant) -> float:
    return grant.quarantined_until.timestamp() if grant.quarantined_until else 0.0


_ORDERS: Final[Mapping[Guarded, Callable[[Grant], float | tuple[float, float]]]] = {
    Guarded.HELD: _refused_at,
    Guarded.CERTAIN: _refused_at,
    Guarded.BELIEVED: lambda grant: -_refused_at(grant),
    Guarded.GIVEN_UP: _kept_until,
    Guarded.DEAD: lambda grant: (_kept_until(grant), _refused_at(grant)),
}
