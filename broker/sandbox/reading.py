"""Reads what the control is told, as JSON, and says plainly what is wrong with it.

Turns objects into faults, settings, clients and companies; a field that nobody knows is an error,
so that a test with a slip in it does not test nothing. Changes nothing.

A fault is an object with its `kind`, and the fields of what makes it in `faults`:

    {"kind": "delay", "seconds": 0.5}             {"kind": "hold", "when": "after"}
    {"kind": "refuse", "error": "invalid_grant"}  {"kind": "rate_limit", "retry_after": "3"}
    {"kind": "fail", "status": 502}               {"kind": "rubbish", "status": 200}
    {"kind": "reset", "when": "after"}            {"kind": "half"}
    {"kind": "alter", "omit": ["expires_in"]}     {"kind": "hang"}
    {"kind": "alter", "replace": {"expires_in": "900"}}
    {"kind": "revoke"}
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError, validate_call

from broker.sandbox.faults import (
    Alter,
    Chance,
    Delay,
    Dice,
    Drop,
    Endpoint,
    Half,
    Hang,
    Hold,
    Revoke,
    Step,
    fail,
    rate_limit,
    refuse,
    rubbish,
)
from broker.sandbox.settings import Settings
from broker.sandbox.waiting import Release

Fields = Mapping[str, object]

_T = TypeVar("_T")


class ControlError(Exception):
    """The control was told something that it cannot follow; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOrder:
    """A rule to add, its steps still unread."""

    steps: tuple[dict[str, object], ...]
    times: int | None = 1
    endpoint: Endpoint = "token"
    grant_type: str | None = None
    company: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiceOrder:
    """Dice to throw: each chance an object with `probability` and `steps`."""

    seed: int
    chances: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceOrder:
    """One chance, its steps still unread."""

    probability: float
    steps: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOrder:
    """Who is to go on; without a number, everybody."""

    number: int | None = None
    then: Release = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectOrder:
    """Whose grants end: those of a company, of a client, of both together, or all."""

    company: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvanceOrder:
    """By how much the sandbox's clock is put forward."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitOrder:
    """What to wait for, and how long."""

    presentations: int = 0
    held: int = 0
    hung_up: int = 0
    finished: int = 0
    timeout: float = 10.0


def read_object(body: bytes) -> Fields:
    """Read a JSON object; nothing at all is an empty one.

    Raises:
        ControlError: it is none.
    """
    try:
        fields = json.loads(body or b"{}")
    except ValueError as error:
        raise ControlError("the body is no JSON") from error
    if not isinstance(fields, dict):
        raise ControlError("the body is no JSON object")
    return fields


def read_as(wanted: type[_T], fields: Fields) -> _T:
    """Read a dataclass of that type.

    Raises:
        ControlError: a field is missing, unknown, or of another type.
    """
    known = inspect.signature(wanted).parameters
    if unknown := sorted(set(fields) - set(known)):
        raise ControlError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        return TypeAdapter(wanted).validate_python(dict(fields))
    except ValidationError as error:
        raise ControlError(_problems(error)) from error


def _read_call(made: Callable[..., Step], fields: Fields) -> Step:
    try:
        return validate_call(made)(**fields)
    except ValidationError as error:
        raise ControlError(_problems(error)) from error


def _problems(error: ValidationError) -> str:
    """Say what is wrong, without the values: one may be a secret."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)


_KINDS: Final[Mapping[str, Callable[[Fields], Step]]] = {
    "delay": partial(read_as, Delay),
    "hold": partial(read_as, Hold),
    "hang": partial(read_as, Hang),
    "refuse": partial(_read_call, refuse),
    "rate_limit": partial(_read_call, rate_limit),
    "fail": partial(_read_call, fail),
    "rubbish": partial(_read_call, rubbish),
    "reset": partial(read_as, Drop),
    "half": partial(read_as, Half),
    "alter": partial(read_as, Alter),
    "revoke": partial(read_as, Revoke),
}


def read_step(fields: Fields) -> Step:
    """Read one fault.

    Raises:
        ControlError: its kind or a field of it is wrong.
    """
    kind = fields.get("kind")
    reader = _KINDS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ControlError(f"kind must be one of {', '.join(_KINDS)}")
    return reader({name: value for name, value in fields.items() if name != "kind"})


def read_dice(fields: Fields) -> Dice:
    """Read a seed and chances.

    Raises:
        ControlError: they are wrong, or add up to more than 1.
    """
    order = read_as(DiceOrder, fields)
    chances = [read_as(ChanceOrder, chance) for chance in order.chances]
    try:
        return Dice(
            seed=order.seed,
            chances=tuple(
                Chance(probability=c.probability, steps=tuple(map(read_step, c.steps)))
                for c in chances
            ),
        )
    except ValueError as error:
        raise ControlError(str(error)) from error


def read_settings(fields: Fields, *, current: Settings) -> Settings:
    """Read changes to the rules; times are seconds, or ISO 8601 durations.

    Raises:
        ControlError: one is wrong, or is no rule.
    """
    if unchangeable := {"clients", "companies"} & set(fields):
        raise ControlError(f"{', '.join(sorted(unchangeable))} have addresses of their own")
    return read_as(Settings, {**asdict(current), **fields})
