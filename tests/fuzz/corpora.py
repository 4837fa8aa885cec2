"""Inputs that found a defect once: a line each, kept to be tried again at every run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CORPUS: Final = Path(__file__).parent / "corpus"


def lines(surface: str) -> list[list[str]]:
    """Returns the inputs of a surface, each as its words. Lines with `#` say what was found."""
    text = (_CORPUS / f"{surface}.txt").read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]
