"""A progress bar on stderr, where somebody is looking: in a log it would be noise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from broker.cli.showing import is_terminal


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """Shows how many of `total` are done; gives what to call for each. Gone at its end."""
    if not is_terminal(sys.stderr):
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - starts fast
    from rich.progress import Progress  # noqa: PLC0415 - likewise

    # Lines that are printed meanwhile go above the bar where both share a screen; a stdout that
    # leads elsewhere must be let alone.
    bar = Progress(
        console=Console(stderr=True), transient=True, redirect_stdout=is_terminal(sys.stdout)
    )
    with bar:
        imports = bar.add_task("importing", total=total)
        yield lambda: bar.advance(imports)


@contextmanager
def filling_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how far something is; gives what to tell done and total. Gone at its end."""
    if not is_terminal(sys.stderr):
        yield lambda _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - starts fast
    from rich.progress import Progress  # noqa: PLC0415 - likewise

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
