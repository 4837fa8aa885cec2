"""Changing whose home a database is, once the broker that it was the home of is off.

Upholds: it changes from the home that was shown and from no other; never while a replica of that
one gives signs of life; and what such a replica left open, stopped and not ended perhaps, is
closed, so that it must ask anew, and is refused (`home.admission`). Not behind a pooler, which
closes its own connections and keeps its clients': there a broker that was stopped and not ended
goes on. Whether the other one stays off is for whoever affirms it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Final

from broker.store.fleet import ALIVE_FOR
from broker.store.home import Home
from broker.store.pool import APPLICATION_NAME, Pool

# Signs that lie ahead were given before the clock was set back, and count.
_ALIVE: Final = """
    SELECT name, build, greatest(clock_timestamp() - seen_at, interval '0') AS since
    FROM replicas WHERE seen_at > clock_timestamp() - $1::interval ORDER BY name
"""

# No tenant has that name, as in `fleet.py`. A role is all that is known of who runs a command.
_ADOPT: Final = """
    WITH adopted AS (
        UPDATE home SET name = $1, environment = $2, token_url = $3, client_id = $4
        WHERE (name, environment, token_url, client_id) = ($5, $6, $7, $8)
        AND NOT EXISTS (SELECT FROM replicas WHERE seen_at > clock_timestamp() - $9::interval)
        RETURNING name
    ), noted AS (
        INSERT INTO grant_events
            (tenant, actor, call, reason, state_before, state_after, generation)
        SELECT '*', 'role ' || current_user, 'adopt', 'the old one is off', $10, $11, 0 FROM adopted
    )
    SELECT count(*) FROM adopted
"""

# A role may end its own sessions. All that a session was admitted for before the home changed, it
# had asked for before: whoever comes later sees the new home. What came in the seconds in which the
# change may have waited for its commit is closed too, and comes again.
_CLOSE: Final = """
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
    AND application_name = $1 AND backend_start < interval '10 seconds' + (
        SELECT max(at) FROM grant_events WHERE tenant = '*' AND call = 'adopt'
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSeen:
    """A replica that gave a sign of life."""

    name: str
    build: str
    since: timedelta
    """Ago."""


async def replicas_alive(pool: Pool) -> Sequence[ReplicaSeen]:
    """Returns who serves this database: those that gave a sign within `ALIVE_FOR`.

    Raises:
        StoreUnavailable: try again.
    """
    return [ReplicaSeen(**row) for row in await pool.fetch(_ALIVE, ALIVE_FOR)]


async def adopt_home(pool: Pool, *, shown: Home, ours: Home) -> bool:
    """Makes it ours, and notes that; returns whether it was still as shown, and nobody alive.

    Raises:
        StoreUnavailable: also when the acknowledgement was lost; read the home again.
    """
    homes = (*astuple(ours), *astuple(shown))
    notes = (" ".join(astuple(shown)), " ".join(astuple(ours)))
    (row,) = await pool.fetch(_ADOPT, *homes, ALIVE_FOR, *notes)
    return bool(row["count"])


async def close_sessions(pool: Pool) -> int:
    """Closes what brokers of our role opened before the home changed last; returns how many.

    `pool`: of another application name, or it closes its own. Safe to repeat.

    Raises:
        StoreUnavailable: try again.
    """
    (row,) = await pool.fetch(_CLOSE, APPLICATION_NAME)
    count: int = row["count"]
    return count
