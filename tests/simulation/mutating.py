"""Breaking a rule of the running code for a while; nothing in `broker/` knows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeAlias

Mutant: TypeAlias = Callable[[], AbstractContextManager[None]]


@contextmanager
def replaced(*places: tuple[object, str, object]) -> Iterator[None]:
    """Puts other things in place of attributes while the block runs."""
    with ExitStack() as undoing:
        for owner, name, other in places:
            undoing.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, other)
        yield
