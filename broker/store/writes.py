"""The statement that writes a grant, by compare-and-set on its version.

One statement is one transaction, one round trip and one place where an acknowledgement can be
lost. What it writes is a value, so that a lesser one can be tried where PostgreSQL refuses a line
of the history, or where the company belongs to somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from broker.domain.history import AttemptRecord, GrantEvent
from broker.ports import Beside
from broker.store.beside import add_beside, add_condition
from broker.store.history import add_attempt, add_event
from broker.store.past import LIVE, PAST_COLUMNS
from broker.store.rows import COLUMN_TYPES, Values
from broker.store.sealing import Keyring
from broker.store.statement import Statement, columns_and_values

# Whoever keeps a copy of the grant in memory must be told when one of these changes.
_TOLD: Final = ("state", "generation", "rejection_generation")

_RETURNING: Final = (
    "RETURNING grants.version, grants.created_at, grants.updated_at, grants.last_used_at, "
    f"clock_timestamp() AS read_at, {PAST_COLUMNS}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantWrite:
    """What is to be written, sealed."""

    tenant: str
    version: int
    """That the row must have; 0: there must be none."""

    live: str
    """The past that the row must be of."""

    values: Values
    """Of the columns to write. The sealed ones are left out where they stay as they are."""

    is_consent: bool
    """Whether a consent, an import or a revocation is stored."""

    ended: AttemptRecord | None
    event: GrantEvent | None
    beside: Beside | None

    @property
    def has_history(self) -> bool:
        """Whether lines of the history go with it."""
        return self.ended is not None or self.event is not None

    @property
    def attempt_number(self) -> int:
        """The attempt that it settles; 0: none."""
        return 0 if self.ended is None else self.ended.attempt.number

    def without_history(self) -> GrantWrite:
        """Returns the same grant without its lines."""
        return replace(self, ended=None, event=None)

    def sharing_subject(self) -> GrantWrite:
        """Returns the same without a claim to the company."""
        return replace(self, values={**self.values, "exclusive_subject": None})


def statement_of(write: GrantWrite, *, keyring: Keyring) -> Statement:
    """Returns the statement, whose part `written` has a row if the grant was written.

    Raises:
        KeyUnavailable: the keyring does not seal what is written beside.
    """
    statement = Statement()
    condition = add_condition(statement, write.beside)
    condition += f" AND {LIVE} = {statement.bind(write.live, 'text')}"
    if write.version == 0:
        _add_insert(statement, write, condition)
    else:
        _add_update(statement, write, condition)
    if write.beside is not None:
        add_beside(statement, write.beside, keyring=keyring)
    if write.ended is not None:
        add_attempt(statement, write.ended)
    if write.event is not None:
        add_event(statement, write.event)
    return statement


def _add_insert(statement: Statement, write: GrantWrite, condition: str) -> None:
    columns, bound = columns_and_values(statement.bind_all(write.values, COLUMN_TYPES))
    statement.add(
        "written",
        f"INSERT INTO grants (tenant, version, {columns})",
        f"SELECT {statement.bind(write.tenant, 'text')}, 1, {bound} WHERE true {condition}",
        "ON CONFLICT (tenant) DO NOTHING",
        _RETURNING,
    )


def _add_update(statement: Statement, write: GrantWrite, condition: str) -> None:
    bound = statement.bind_all(write.values, COLUMN_TYPES)
    told = ", ".join(bound[column] for column in _TOLD)
    statement.add(
        "written",
        "UPDATE grants SET version = version + 1, updated_at = clock_timestamp(),",
        f"changed_xid = CASE WHEN ({', '.join(_TOLD)}) IS DISTINCT FROM ({told})",
        "THEN pg_current_xact_id() ELSE changed_xid END,",
        ", ".join(f"{column} = {value}" for column, value in bound.items()),
        f"WHERE tenant = {statement.bind(write.tenant, 'text')}",
        f"AND version = {statement.bind(write.version, 'bigint')} {condition}",
        _RETURNING,
    )
