"""A fake of `Records`. It passes the conformance suite of the real one."""

from __future__ import annotations

from collections.abc import Sequence

from broker.domain.disclosure import Disclosure, HandedOut
from broker.domain.grant import TokenPair
from broker.domain.history import RecordedEvent
from broker.ports import Recorded
from support.fake_store import A_FAKE_KEY_ID
from support.fake_world import FakeWorld


class FakeRecords:
    """Upholds `Records`."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world

    async def about(self, tenant: str, *, limit: int) -> Recorded:
        await self._world.arrive("about", tenant)
        world = self._world
        attempts = [each for each in world.attempts if each.tenant == tenant]
        attempts.sort(key=lambda each: -each.attempt.number)
        events = [each for each in reversed(world.events) if each.tenant == tenant]
        disclosures = [each for each in world.disclosures.values() if each.tenant == tenant]
        disclosures.sort(key=lambda each: each.last_at, reverse=True)
        row = world.rows.get(tenant)
        recorded = Recorded(
            attempts=tuple(attempts[:limit]),
            events=tuple(RecordedEvent(at=world.now(), event=each) for each in events[:limit]),
            disclosures=tuple(disclosures[:limit]),
            key_id=A_FAKE_KEY_ID if row and isinstance(row.grant.pair, TokenPair) else None,
        )
        await self._world.depart("about", tenant)
        return recorded

    async def note_handed_out(self, notes: Sequence[HandedOut]) -> None:
        await self._world.arrive("note_handed_out")
        now = self._world.now()
        for note in notes:
            new = Disclosure(
                tenant=note.tenant,
                caller=note.caller,
                first_generation=note.first_generation,
                last_generation=note.last_generation,
                first_at=now - note.first_age,
                last_at=now - note.last_age,
            )
            known = self._world.disclosures.get((note.tenant, note.caller), new)
            self._world.disclosures[note.tenant, note.caller] = _widened(known, new)
        await self._world.depart("note_handed_out")


def _widened(one: Disclosure, other: Disclosure) -> Disclosure:
    return Disclosure(
        tenant=one.tenant,
        caller=one.caller,
        first_generation=min(one.first_generation, other.first_generation),
        last_generation=max(one.last_generation, other.last_generation),
        first_at=min(one.first_at, other.first_at),
        last_at=max(one.last_at, other.last_at),
    )
