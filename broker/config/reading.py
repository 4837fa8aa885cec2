"""From environment variables to what the model takes: secrets from files, and unknown names.

A variable that is set and empty is as if it were not set, as compose files and charts leave it;
except where the reader of the setting says that empty means something (`BROKER_PLEO_API_URL`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from broker.config.declaring import Frozen
from broker.config.problems import Problem, SecretUnreadableError
from broker.config.sources import SecretSource, without_newline
from broker.domain.secret import Secret

PREFIX: Final = "BROKER_"

SECRETS: Final = frozenset({"BROKER_DATABASE_URL", "BROKER_REDIS_URL", "BROKER_PLEO_CLIENT_SECRET"})
"""These come from the variable itself, or from the file that `…_FILE` names."""

_EMPTY_MEANS_SOMETHING: Final = frozenset({"BROKER_PLEO_API_URL"})

# What Kubernetes tells every container about a service called `broker`, or `broker-…`.
_SERVICE_LINK: Final = re.compile(
    r"BROKER_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownName:
    """A variable that looks like ours and is none."""

    variable: str
    nearest: str | None

    def __str__(self) -> str:
        """A line for people."""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.variable}: no setting has this name{hint}"


def variables(model: type[Frozen]) -> tuple[str, ...]:
    """Returns the names of a model's variables, without those that end in `_FILE` for a secret."""
    return tuple(field.alias for field in model.model_fields.values() if field.alias)


def names(*models: type[Frozen]) -> frozenset[str]:
    """Returns every name that is read for these models."""
    plain = {name for model in models for name in variables(model)}
    return frozenset(plain | {f"{name}_FILE" for name in plain & SECRETS})


def find_unknown(environ: Mapping[str, str], known: frozenset[str]) -> Iterator[UnknownName]:
    """Gives the names that begin as ours do and are not known, except what Kubernetes sets."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name):
            yield UnknownName(variable=name, nearest=_nearest(name, known))


def _nearest(name: str, known: frozenset[str]) -> str | None:
    # Without what all of them begin with, which would make any two alike.
    rest = sorted(each.removeprefix(PREFIX) for each in known)
    found = difflib.get_close_matches(name.removeprefix(PREFIX), rest, n=1)
    return f"{PREFIX}{found[0]}" if found else None


def read_variables(
    model: type[Frozen], environ: Mapping[str, str]
) -> tuple[dict[str, str | SecretSource], list[Problem]]:
    """Returns what is set for a model, and the secrets that cannot be read, which are left out."""
    found: dict[str, str | SecretSource] = {}
    problems: list[Problem] = []
    for name in variables(model):
        value = environ.get(name)
        if name in SECRETS:
            source, secret_problems = _read_secret(name, environ)
            problems += secret_problems
            if source is not None:
                found[name] = source
        elif value or (value is not None and name in _EMPTY_MEANS_SOMETHING):
            found[name] = value
    return found, problems


def problems_of(error: ValidationError, model: type[Frozen]) -> Iterator[Problem]:
    """Translates pydantic's errors, without what was read, which they hold."""
    meanings = {field.alias: field.description for field in model.model_fields.values()}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        variable = str(detail["loc"][0])
        is_missing = detail["type"] == "missing"
        expected = f"a value: {meanings[variable]}" if is_missing else detail["msg"]
        yield Problem(variable=variable, expected=expected)


def _read_secret(
    name: str, environ: Mapping[str, str]
) -> tuple[SecretSource | None, list[Problem]]:
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if value and path:
        return None, [Problem(variable=name, expected=f"either this or {name}_FILE, not both")]
    if value:
        return SecretSource(variable=name, value=Secret(without_newline(value))), []
    if not path:
        return None, []
    source = SecretSource(variable=f"{name}_FILE", path=Path(path))
    try:
        source.read()
    except SecretUnreadableError as error:
        expected = f"the path of a file with the secret; this one: {error.why}"
        return None, [Problem(variable=error.variable, expected=expected)]
    return source, []
