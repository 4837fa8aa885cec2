"""PostgreSQL loses its last commits: a standby that lagged behind takes over, on a new timeline.

What a living process has stored, and the standby never got, it remembers, and nothing of that may
be lost. What nobody remembers is gone, which is nobody's fault.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulation.commits import Commits
from simulation.keeping import refresh_token_of
from simulation.laws import Laws
from simulation.quiet import Quiet
from support.fake_world import Saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """What it has when it hears nothing more."""

    saved: Saved
    stored: frozenset[str]
    """Refresh tokens that PostgreSQL had by then."""


class Losses:
    """Loses commits, and tells the laws what is lost."""

    def __init__(self, laws: Laws, commits: Commits) -> None:
        self.quiet = Quiet()
        """Stirred where commits are lost."""

        self._laws = laws
        self._commits = commits
        self._standby: Standby | None = None

    def lag(self) -> bool:
        """Lets the standby hear nothing from now on; says whether it heard anything so far."""
        if self._standby is not None:
            return False
        keeping = self._laws.keeping
        self._standby = Standby(saved=keeping.world.save(), stored=frozenset(keeping.stored))
        return True

    def take_over(self) -> None:
        """Lets the standby take over: what it has not heard is lost."""
        standby, self._standby = self._standby, None
        if standby is None:
            return
        keeping = self._laws.keeping
        rows = {tenant: row.grant for tenant, row in keeping.world.rows.items()}
        lost = keeping.stored - standby.stored
        keeping.lose(lost, newest={refresh_token_of(row) or "" for row in rows.values()})
        keeping.world.restore(standby.saved)
        self._laws.commits_are_lost(rows, lost)
        self._commits.forget_revocations()
        self._commits.guard.rewound()
        self.quiet.stir()
