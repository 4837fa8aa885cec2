"""How a command that does not succeed says so: an exit status, and a plain line or two on stderr.

What is said holds no secret: neither a token nor the value of a variable (law 7).
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a caller's script may rely on."""

    DONE = 0
    FAILED = 1
    WRONG_USE = 2
    REAUTH_REQUIRED = 3
    INTERRUPTED = 130
    """As shells have it: 128 and the number of SIGINT."""


class CommandFailed(Exception):  # noqa: N818 - what happened to the command
    """Ends a command."""

    def __init__(
        self, message: str, *, hint: str = "", status: ExitStatus = ExitStatus.FAILED
    ) -> None:
        """`hint`: what to do next."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status

    def __str__(self) -> str:
        """What is written on stderr."""
        return f"error: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")
