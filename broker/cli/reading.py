"""Where commands read what is given to them: standard input, as bytes. Decodes nothing."""

from __future__ import annotations

import sys
from typing import BinaryIO

from broker.cli.failing import CommandFailed, ExitStatus


def standard_input() -> BinaryIO:
    """Returns it, unread.

    Raises:
        CommandFailed: wrong use; it is closed, as with `<&-`.
    """
    if sys.stdin is None:
        raise CommandFailed(
            "standard input is closed, and is what the command reads", status=ExitStatus.WRONG_USE
        )
    return sys.stdin.buffer
