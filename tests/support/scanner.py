"""Finds thousands of secrets in hundreds of megabytes, in every form (law 7).

All forms of a secret consist of few characters. So whatever has a long run of them is cut into
windows, one after the other, and looked up among the windows that the ends of the forms have at
each offset: a whole form always covers one of them. A part of one that is as long as its end is
found as well. Secrets too short for that are searched for one by one; there are few.

What is found is told by medium, form and kind, and never shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from support.secret_forms import Encoding, forms

_WINDOW: Final = 16
"""Bytes. Eight of a secret where it is in hex, 64 bits: found by chance nowhere."""

_END: Final = 2 * _WINDOW - 1
"""Bytes of a form that hold a window wherever the windows begin."""

_RUN: Final = re.compile(rb"[A-Za-z0-9+/=_%%.~-]{%d,}" % _END)

_SHORTEST: Final = 12
"""Characters: a shorter word, such as "secret", lies about everywhere."""

_VARIED: Final = 10
"""Different characters: what has fewer, such as a code of 43 letters A, keeps nothing secret."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Hit:
    """Something secret where it must not be."""

    medium: str
    encoding: Encoding
    kind: str


def is_secret(value: str) -> bool:
    """Whether a value is worth to be looked for: long and varied enough."""
    return len(value) >= _SHORTEST and len(set(value[-_END:])) >= _VARIED


class Scanner:
    """Looks for these secrets."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """Prepares all forms, some 200 windows for each secret; their values, and what each is."""
        self._windows: dict[bytes, tuple[Encoding, str]] = {}
        self._short: dict[bytes, tuple[Encoding, str]] = {}
        for value, kind in secrets.items():
            if is_secret(value):
                self._prepare(value, kind)

    def _prepare(self, value: str, kind: str) -> None:
        for form, encoding in forms(value).items():
            meaning = (encoding, kind)
            if not _RUN.fullmatch(form):
                self._short[form] = meaning
                continue
            end = form[-_END:]
            for offset in range(_WINDOW):
                self._windows.setdefault(end[offset : offset + _WINDOW], meaning)

    def hits(self, medium: str, content: bytes) -> Counter[Hit]:
        """Returns what lies in a part of a medium, and how often."""
        found = [meaning for form, meaning in self._short.items() if form in content]
        for run in _RUN.findall(content):
            windows = {run[at : at + _WINDOW] for at in range(0, len(run), _WINDOW)}
            found += [self._windows[each] for each in windows & self._windows.keys()]
        return Counter(Hit(medium=medium, encoding=each, kind=kind) for each, kind in found)
