"""The settings of each command, built from environment variables in one step.

Who holds one of these knows that it was checked: every variable by itself, and all together. Which
settings a command must have is its type. Printing one shows no secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Self, TypeVar

from pydantic import ValidationError

from broker.config.declaring import required
from broker.config.fields import (
    DatabaseSource,
    Fields,
    RedisSource,
    RequiredPath,
    RequiredText,
)
from broker.config.problems import Problem, SettingsError
from broker.config.reading import UnknownName, find_unknown, names, problems_of, read_variables
from broker.config.rules import RULES, Rule
from broker.config.showing import shown
from broker.config.sources import SecretSource

S = TypeVar("S", bound=Fields)


class Settings(Fields):
    """The settings of a command that needs none of them in particular."""

    rules: ClassVar[tuple[Rule, ...]] = RULES

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Reads and checks the variables. Unknown names are another matter: `unknown_names`.

        Raises:
            SettingsError: what is wrong, all of it. No value is in it.
        """
        found, problems = read_variables(cls, environ)
        settings, wrong = _checked(cls, found)
        problems += _further(problems, wrong)
        stand_in = Fields.model_validate(_without(found, problems))
        problems += _further(problems, (each for rule in cls.rules for each in rule(stand_in)))
        if problems or settings is None:
            raise SettingsError(problems)
        return settings

    def warnings(self) -> tuple[str, ...]:
        """Returns what is allowed and probably not meant."""
        return tuple(_warnings(self))

    def redacted(self) -> dict[str, str]:
        """Returns every variable with what it is set to, as it may be printed at start."""
        return dict(_redacted(self))

    def __repr__(self) -> str:
        """All of it, without secrets."""
        inside = ", ".join(f"{name}={value}" for name, value in _redacted(self))
        return f"{type(self).__name__}({inside})"

    __str__ = __repr__


class ClientSettings(Settings):
    """For the commands that talk to a running broker."""


class MigrateSettings(Settings):
    """For `migrate`: there is a database."""

    database_url: DatabaseSource = required(Fields, "database_url")


class KeysSettings(Settings):
    """For `keys`: there is a keyset's path."""

    keyset_file: RequiredPath = required(Fields, "keyset_file")


class RegistrationSettings(Settings):
    """For what has to be registered with Pleo."""

    pleo_client_id: RequiredText = required(Fields, "pleo_client_id")


class ServeSettings(Settings):
    """For `serve`: everything that it needs, and nothing that it cannot do yet."""

    rules: ClassVar[tuple[Rule, ...]] = RULES

    database_url: DatabaseSource = required(Fields, "database_url")
    redis_url: RedisSource = required(Fields, "redis_url")
    keyset_file: RequiredPath = required(Fields, "keyset_file")
    pleo_client_id: RequiredText = required(Fields, "pleo_client_id")
    pleo_client_secret: SecretSource = required(Fields, "pleo_client_secret")


def unknown_names(environ: Mapping[str, str]) -> tuple[UnknownName, ...]:
    """Returns the variables that begin with `BROKER_` and are no setting, each with its nearest."""
    return tuple(find_unknown(environ, names(Fields)))


def _checked(
    model: type[S], found: Mapping[str, str | SecretSource]
) -> tuple[S | None, list[Problem]]:
    try:
        return model.model_validate(found), []
    except ValidationError as error:
        return None, list(problems_of(error, model))


def _without(
    found: Mapping[str, str | SecretSource], problems: Sequence[Problem]
) -> dict[str, str | SecretSource]:
    wrong = {problem.variable for problem in problems}
    return {name: value for name, value in found.items() if name not in wrong}


def _further(known: Sequence[Problem], found: Iterable[Problem]) -> list[Problem]:
    """Leaves out what is said of, or because of, a variable that is wrong already."""
    wrong = [problem.variable.removesuffix("_FILE") for problem in known]
    return [
        problem
        for problem in found
        if not any(name in f"{problem.variable} {problem.expected}" for name in wrong)
    ]


def _warnings(settings: Fields) -> Iterator[str]:
    if not settings.allows_anonymous and not settings.has_identities:
        yield (
            "nobody can call: callers need an identity, and neither BROKER_TLS_CLIENT_CA_FILE nor"
            " BROKER_JWT_ISSUER is set"
        )
    if not settings.pleo_redirect_uris:
        yield "nobody can authorize: BROKER_PLEO_REDIRECT_URIS is empty"


def _redacted(settings: Fields) -> Iterator[tuple[str, str]]:
    for name, field in type(settings).model_fields.items():
        yield str(field.alias), shown(str(field.alias), getattr(settings, name))
