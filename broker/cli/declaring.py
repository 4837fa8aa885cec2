"""What the declarations of several commands have in common. Starts fast: no gRPC, no protobuf."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, ParamSpec, TypeAlias

import typer

from broker.domain.fields import check_reason

P = ParamSpec("P")

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and nothing else.")
]


def _reason(reason: str) -> str:
    violation = check_reason(reason)
    if violation is not None:
        raise typer.BadParameter(violation.description)
    return reason


Reason: TypeAlias = Annotated[str, typer.Option(help="Why, for the record.", callback=_reason)]


def quietly(command: Callable[P, None]) -> Callable[P, None]:
    """Keeps gRPC from logging on stderr what its failed calls tell as well."""

    @wraps(command)
    def called(*args: P.args, **kwargs: P.kwargs) -> None:
        # Heeded only before grpc is imported, which the command does.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        command(*args, **kwargs)

    return called


def environ_of(context: typer.Context) -> Mapping[str, str]:
    """Returns the environment variables that the command goes by."""
    environ: Mapping[str, str] = context.obj
    return environ
