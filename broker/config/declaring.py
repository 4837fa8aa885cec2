"""How a setting is declared: variable, meaning and default in one place, read by the table too."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

T = TypeVar("T")


def setting(variable: str, meaning: str, default: T, *, without: str = "") -> T:
    """Declares a setting; `without` is shown in place of a default that is None."""
    extra: JsonDict | None = {"without": without} if without else None
    field: T = Field(default, alias=variable, description=meaning, json_schema_extra=extra)
    return field


def required(model: type[BaseModel], name: str) -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Declares again, as one that must be set, a setting that `model` can do without."""
    inherited = model.model_fields[name]
    return Field(alias=inherited.alias, description=inherited.description)


class Frozen(BaseModel):
    """What all settings have in common. Errors never hold what was read."""

    model_config = ConfigDict(
        frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True, extra="forbid"
    )
