"""Which tokens of a grant one caller has been given: after a leak, the list of who may hold one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """What is on record of one tenant and caller."""

    tenant: str
    caller: str
    first_generation: int
    last_generation: int
    """Not every generation in between need have been given out."""

    first_at: datetime
    last_at: datetime
    """Of the last generation; noted again every so often while that one is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOut:
    """What is to be added to that record."""

    tenant: str
    caller: str
    first_generation: int
    last_generation: int
    first_age: timedelta
    """How long ago it was when this is written, since only PostgreSQL reads its clock."""

    last_age: timedelta
