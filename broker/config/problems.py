"""What can be wrong with settings: which variable, and what was expected; never what it held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One wrong variable. A value is never repeated: any of them may hold a secret by mistake."""

    variable: str
    expected: str

    def __str__(self) -> str:
        """A line for people."""
        return f"{self.variable}: expected {self.expected}"


class SettingsError(ValueError):
    """The settings do not do; holds all problems at once, so that they are mended in one go."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """`problems`: at least one."""
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class SecretUnreadableError(OSError):
    """A `…_FILE` cannot be read, or holds nothing. Names the file, and never what is in it."""

    def __init__(self, *, variable: str, path: Path, why: str) -> None:
        """`why`: what is wrong with the file, in a few words."""
        super().__init__(f"{variable}: {path}: {why}")
        self.variable = variable
        self.path = path
        self.why = why
