"""What this replica has stored last, tenant by tenant: for a PostgreSQL that loses commits.

Each is the row as it was committed, with its refresh token, so that it can be written back where a
failover or a restore has taken it away. Memory keeps no refresh tokens; here they are kept all the
same, because nobody else has one that PostgreSQL has lost, and because the keyset, which opens
every row there is, lies in the same memory: whoever can read the one has the other. What another
replica has replaced, or an operator revoked, goes at the news of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker.domain.grant import Grant, GrantState, TokenPair
from broker.domain.recall_writes import is_newer
from broker.ports import GrantMoved

KEPT_FOR: Final = 24 * 3600.0
"""Seconds. A standby lags by seconds, and its promotion by hand takes minutes; but a restore from a
backup takes hours, and would cost every customer whose pair was rotated since."""

MOST_KEPT: Final = 50_000
"""Of some kilobytes each, as the copies in `memory.py`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    grant: Grant
    at: float


class Recall:
    """The rows, the longest stored first."""

    def __init__(self, *, most_kept: int = MOST_KEPT) -> None:
        """`most_kept`: beyond that the oldest is forgotten."""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._doubted: OrderedDict[str, None] = OrderedDict()
        self._most_kept = most_kept

    def __len__(self) -> int:
        """How many are kept."""
        self._forget_old()
        return len(self._kept)

    def keep(self, grant: Grant) -> None:
        """Keeps a row that was just committed, or read where it was newer than a pair in hand.

        A revoked one has tokens for as long as their deletion at Pleo is due: without them a
        repeated call would be told that it is done. They go when the row without them is kept.
        """
        kept = self._kept.get(grant.tenant)
        if kept is not None and is_newer(kept.grant, grant):
            # PostgreSQL has lost that one, and took an older one before anybody could compare.
            self._doubted[grant.tenant] = None
            return
        self.forget(grant.tenant)
        row = _as_it_may_come_back(grant)
        if row is not None:
            self._kept[row.tenant] = _Kept(grant=row, at=asyncio.get_running_loop().time())
        self._forget_old()

    def newer_than(self, row: Grant) -> Grant | None:
        """Returns what was stored here after the row that was read; forgets what came before it."""
        self._forget_old()
        kept = self._kept.get(row.tenant)
        if kept is None:
            return None
        if is_newer(kept.grant, row):
            return kept.grant
        if is_newer(row, kept.grant):
            self.forget(row.tenant)
        return None

    def moved(self, news: GrantMoved) -> None:
        """Forgets a row that somebody else has replaced."""
        kept = self._kept.get(news.tenant)
        if kept is not None and news.generation > kept.grant.generation:
            self.forget(news.tenant)

    def doubt_all(self) -> None:
        """Has every row compared: PostgreSQL may have lost it."""
        self._doubted = OrderedDict.fromkeys(reversed(self._kept))

    def doubted(self) -> Sequence[str]:
        """Returns the tenants to compare, the last stored first: those may be lost.

        Asked at every turn, so that what is old goes also where nothing is read or stored.
        """
        self._forget_old()
        return list(self._doubted)

    def compare_last(self, tenant: str) -> None:
        """Lets the others go first."""
        if tenant in self._doubted:
            self._doubted.move_to_end(tenant)

    def compared(self, tenant: str) -> None:
        """Takes note that a tenant's row is as new as what is kept, or newer."""
        self._doubted.pop(tenant, None)

    def forget(self, tenant: str) -> None:
        """Forgets a row."""
        self._kept.pop(tenant, None)
        self._doubted.pop(tenant, None)

    def _forget_old(self) -> None:
        oldest = asyncio.get_running_loop().time() - KEPT_FOR
        while self._kept:
            tenant, kept = next(iter(self._kept.items()))
            if kept.at >= oldest and len(self._kept) <= self._most_kept:
                return
            self.forget(tenant)


def _as_it_may_come_back(grant: Grant) -> Grant | None:
    """Returns a row without what could not be sealed again; None: it is not to come back.

    Neither a refusal nor a hold is: both may be taken back without a number that tells (law 5).
    """
    opens = isinstance(grant.pair, TokenPair)
    if grant.state is GrantState.REVOKED:
        return grant if opens else replace(grant, pair=None, expires_at=None)
    return grant if opens and grant.state is GrantState.ACTIVE else None
