"""`token-broker`, also `python -m broker`."""

from __future__ import annotations

import os
import sys
from typing import Final

_INTERRUPTED: Final = 130
"""As `ExitStatus` has it, which may not be imported by then."""


def main() -> None:
    """Runs the command of this process's arguments, and exits with its status."""
    _occupy_standard_streams()
    try:
        # Only here, because Ctrl-C may come while they are imported, which takes a moment.
        from broker.cli.app import run  # noqa: PLC0415 - see above
        from broker.cli.ending import settled  # noqa: PLC0415 - likewise

        status = settled(run(sys.argv[1:], environ=os.environ))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    sys.exit(status)


def _occupy_standard_streams() -> None:
    """Puts the null device where a shell has closed one, as with `2>&-`.

    Else the next file or socket takes its number: what a library writes on stderr would go to
    PostgreSQL, and libuv aborts a process that closes a descriptor of such a number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free, which is this one


if __name__ == "__main__":
    main()
