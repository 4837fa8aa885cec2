"""How many inputs each surface is given: a few seconds' worth, or as many as `make fuzz` says."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES_VARIABLE: Final = "FUZZ_EXAMPLES"
SEED_VARIABLE: Final = "FUZZ_SEED"

IS_LONG: Final = EXAMPLES_VARIABLE in os.environ

SEED: Final = int(os.environ.get(SEED_VARIABLE, "1"))
"""The same inputs again, as far as real servers let a run be repeated."""


def examples(usual: int) -> int:
    """Returns how many inputs to try; `usual` is what takes a few seconds."""
    return int(os.environ.get(EXAMPLES_VARIABLE, usual))


def fuzzed(usual: int) -> settings:
    """Returns hypothesis's settings. Always the same inputs in `make test`, new ones else."""
    return settings(
        max_examples=examples(usual),
        derandomize=not IS_LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def report(surface: str, tally: Mapping[str, int]) -> None:
    """Says what was tried: pytest shows it in a long run, and where a test fails."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()))
    sys.stderr.write(f"{surface}: {sum(tally.values())} inputs tried: {counts}\n")
    sys.stderr.flush()
