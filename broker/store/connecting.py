"""One connection to PostgreSQL: to which server, how long anything may take, what is not accepted.

Every wait has an end: the server's timeouts first, since they end the work as well, and the
client's a little later for a server or a network that has gone silent.

The server learns its timeouts when a connection begins. PgBouncer refuses such parameters, or drops
them where it is told to (`ignore_startup_parameters`), and then the role must have them: a session
without is refused, for a statement that nobody ends could commit when it is long given up.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from broker.domain.errors import StoreUnavailable
from broker.store.failures import is_unavailable
from broker.store.hosts import Host, hosts_of, wanted_of

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy

CONNECT_SECONDS: Final = 2.0
"""A healthy one takes a few milliseconds, with TLS across zones some dozen. Several hosts share
it: who waits for a connection waits for no longer."""

STATEMENT_TIMEOUT: Final = "3s"
"""Sixty times what the slowest statement here takes, and a tenth of an attempt's deadline."""

LOCK_TIMEOUT: Final = "2s"
"""Rows are locked for single statements; who waits longer waits for somebody's migration."""

IDLE_IN_TRANSACTION_TIMEOUT: Final = "10s"
"""Transactions here are a few statements: a replica that was paused must not hold their locks."""

COMMAND_SECONDS: Final = 3.5
"""Later than the server's own timeout, whose answer says more than silence."""

OLDEST_SERVER: Final = 14
"""The oldest that is still maintained (`SETTINGS.md`)."""

TIMEOUTS: Final = {
    "statement_timeout": STATEMENT_TIMEOUT,
    "lock_timeout": LOCK_TIMEOUT,
    "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT,
}
"""What every session of the service has."""

# PgBouncer's words for a parameter that it does not know; all its errors have the same SQLSTATE.
_NOT_TAKEN: Final = "unsupported startup parameter"

_ASK: Final = """
    SELECT current_setting('synchronous_commit') AS synchronous_commit, current_user AS role,
    ARRAY(
        SELECT name FROM unnest($1::text[], $2::interval[]) AS ours (name, most)
        WHERE current_setting(name)::interval NOT BETWEEN interval '1 ms' AND most
    ) AS without
"""


class DatabaseUnfit(StoreUnavailable):
    """Too old, with commits that a crash may undo, of another schema, or of another home."""

    def __init__(self, message: str, *, code: str) -> None:
        """`code`: what health calls it."""
        super().__init__(message, metadata={"code": code})
        self.code = code


@dataclass(slots=True, kw_only=True)
class Dialer:
    """Connects, and begins with the host that it reached last: a dead one costs no second wait."""

    tls: ssl.SSLContext | None
    """None: as the address says."""

    settings: dict[str, str] = field(default_factory=dict)
    """Of the session."""

    command_seconds: float | None = None
    _last: Host | None = None

    async def dial(self, url: str) -> asyncpg.Connection:
        """Makes one connection, to the first host that can write.

        Raises:
            DatabaseUnfit: a pooler takes no timeouts. Exception: the driver's own, of the last.
        """
        try:
            hosts = hosts_of(url)
            if len(hosts) == 1:
                return await self._connect(url, timeout=CONNECT_SECONDS)
            return await self._try_each(url, hosts)
        except asyncpg.ProtocolViolationError as error:
            if _NOT_TAKEN not in str(error):
                raise
            raise DatabaseUnfit(
                f"a pooler takes no timeouts: ignore_startup_parameters = {','.join(TIMEOUTS)}",
                code="TIMEOUTS_NOT_TAKEN",
            ) from None

    async def _try_each(self, url: str, hosts: Sequence[Host]) -> asyncpg.Connection:
        share = CONNECT_SECONDS / len(hosts)
        failure: Exception = asyncpg.InternalClientError("no host")
        for host in sorted(hosts, key=lambda each: each != self._last):
            where = {"host": host.name, "port": host.port, "target_session_attrs": wanted_of(url)}
            try:
                connection = await self._connect(url, timeout=share, **where)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                failure = error
            else:
                self._last = host
                return connection
        raise failure

    async def _connect(self, url: str, *, timeout: float, **where: Any) -> asyncpg.Connection:  # noqa: ASYNC109, ANN401 - the driver's own
        return await asyncpg.connect(
            url,
            ssl=self.tls,
            timeout=timeout,
            command_timeout=self.command_seconds,
            # A pooler gives each transaction another session, which knows no statements of ours.
            statement_cache_size=0,
            server_settings=self.settings,
            **where,
        )


async def refuse_unfit(connection: Connection) -> None:
    """Refuses a session on which the service cannot rely.

    Raises:
        DatabaseUnfit: see there.
    """
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise DatabaseUnfit(
            f"PostgreSQL {version.major} is too old: use {OLDEST_SERVER} or newer",
            code="POSTGRES_TOO_OLD",
        )
    # Asked in each session: a role or a database may have its own settings.
    most = [_span(each) for each in TIMEOUTS.values()]
    (row,) = await connection.fetch(_ASK, list(TIMEOUTS), most)
    # A pair whose commit a crash undoes is a customer locked out (law 3).
    if row["synchronous_commit"] == "off":
        raise DatabaseUnfit(
            "synchronous_commit is off: set it to on for this role and database",
            code="SYNCHRONOUS_COMMIT_OFF",
        )
    if row["without"]:
        alter = f"ALTER ROLE {row['role']} SET"
        mend = "; ".join(f"{alter} {each} = '{TIMEOUTS[each]}'" for each in row["without"])
        raise DatabaseUnfit(
            f"a pooler drops our timeouts, and the role has none: {mend}", code="TIMEOUTS_MISSING"
        )


def _span(written: str) -> timedelta:
    return timedelta(seconds=float(written.removesuffix("s")))
