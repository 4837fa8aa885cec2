"""Who keeps a pair at a moment: PostgreSQL, an escrow, the hands of a living process, or nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from broker.domain.grant import Grant as Row
from broker.domain.grant import TokenPair
from broker.sandbox.grants import Located
from simulation.process import Process
from support.fake_lease import FakeRedis
from support.fake_provider import FakeProvider
from support.fake_world import FakeWorld


def refresh_token_of(row: Row) -> str | None:
    """Returns the refresh token in a row, in clear."""
    if not isinstance(row.pair, TokenPair) or row.pair.refresh_token is None:
        return None
    return row.pair.refresh_token.reveal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Looks everywhere. Pairs are told apart by their refresh tokens."""

    world: FakeWorld
    redis: FakeRedis
    pleo: FakeProvider
    processes: list[Process]
    """All there ever were."""

    stored: set[str] = field(default_factory=set)
    """Refresh tokens that PostgreSQL had once."""

    escrowed: set[str] = field(default_factory=set)
    """Refresh tokens that Redis has acknowledged, and has not forgotten by itself."""

    kept_at: dict[str, float] = field(default_factory=dict)
    """When PostgreSQL or Redis first had a refresh token, on the loop's clock."""

    received: dict[str, list[Process]] = field(default_factory=dict)
    """Whom Pleo's answers reached."""

    committers: dict[str, list[Process]] = field(default_factory=dict)
    """Who has stored a refresh token."""

    forgiven: set[str] = field(default_factory=set)
    """Refresh tokens that PostgreSQL has lost and nobody remembers."""

    def note_stored(self, refresh_token: str) -> None:
        """Notes that PostgreSQL has it."""
        self.stored.add(refresh_token)
        self.kept_at.setdefault(refresh_token, asyncio.get_running_loop().time())

    def lose(self, lost: set[str], *, newest: set[str]) -> None:
        """Notes that PostgreSQL has lost these; who stored the newest of a row remembers it."""
        self.stored.difference_update(lost)
        self.escrowed.difference_update(lost)
        self.forgiven.update(lost)
        for process in self.processes:
            process.known -= lost
            process.remembered.clear()
        for refresh_token in sorted(lost & newest):
            living = [each for each in self.committers[refresh_token] if not each.is_dead]
            for process in living:
                process.remembered.add(refresh_token)
            if living and self.is_alive(refresh_token):
                self.forgiven.discard(refresh_token)

    def note_escrowed(self, refresh_token: str) -> None:
        """Notes that Redis has it."""
        self.escrowed.add(refresh_token)
        self.kept_at.setdefault(refresh_token, asyncio.get_running_loop().time())

    def is_overtaken(self, refresh_token: str, *, armed_at: float) -> bool:
        """Whether who had it stood still and kept it only when another was about to present.

        Between the last look for it and the presentation there is a moment that no client can
        close; whoever stands still for longer than a deadline and a quarantine may come just then.
        Not so what somebody else has put into PostgreSQL meanwhile, from where it was looked for.
        """
        receivers = self.received.get(refresh_token, [])
        was_late = self.kept_at.get(refresh_token, armed_at) >= armed_at
        is_own = all(each in receivers for each in self.committers.get(refresh_token, []))
        return was_late and is_own and any(each.was_paused_lately() for each in receivers)

    def find(self, refresh_token: str) -> Located | None:
        """Returns where a refresh token belongs at Pleo."""
        return self.pleo.sandbox.server.realm.ledger.find_refresh_token(refresh_token)

    def is_alive(self, refresh_token: str) -> bool:
        """Whether Pleo would rotate it."""
        located = self.find(refresh_token)
        return located is not None and located.standing(self.pleo.sandbox.now()) == "current"

    def name(self, refresh_token: str | None) -> str:
        """Names it without showing it."""
        located = self.find(refresh_token) if refresh_token else None
        return f"pair {located.grant.number}.{located.generation}" if located else "no pair"

    def keepers(self, refresh_token: str, *, is_protected: bool = False) -> list[str]:
        """Returns who keeps it.

        Whoever was paused or cut off lately may be late with it, and does not count; unless
        `is_protected`: within its quarantine it may be as late as it likes.
        """
        receivers = self.received.get(refresh_token, [])
        if not is_protected and any(each.was_paused_lately() for each in receivers):
            return []  # it may have stored it a moment ago, or be about to
        found = [*self._in_postgres(refresh_token), *self._in_escrow(refresh_token)]
        return found + [
            each.name
            for each in self.processes
            if not each.is_dead and each.has(refresh_token)
            if is_protected or not (each.was_paused_lately() or each.was_cut_lately())
        ]

    def _in_postgres(self, refresh_token: str) -> Iterator[str]:
        for row in self.world.rows.values():
            if refresh_token_of(row.grant) == refresh_token:
                yield "PostgreSQL"
        for record in self.world.imports.values():
            kept = record.refresh_token
            if kept is not None and kept.reveal() == refresh_token:
                yield "the record of an import"

    def _in_escrow(self, refresh_token: str) -> Iterator[str]:
        for escrow in self.redis.escrows.values():
            if escrow.issued.refresh_token.reveal() == refresh_token:
                yield "an escrow"

    def newer(self, located: Located) -> list[str]:
        """Returns the refresh tokens that Pleo issued after one, under the same grant."""
        return [pair.refresh_token for pair in located.grant.pairs[located.generation :]]

    def may_be_lost(self, refresh_token: str) -> bool:
        """Whether it was lost on its way to PostgreSQL by what no code can help."""
        if refresh_token in self.stored or refresh_token in self.escrowed:
            return False
        if refresh_token in self.forgiven:
            return True
        receivers = [each for each in self.processes if refresh_token in each.remembered]
        receivers = receivers or self.received.get(refresh_token, [])
        return all(each.is_dead or each.was_impaired for each in receivers)
