"""`token-broker`, also `python -m broker`."""

from __future__ import annotations

import os
import sys
from typing import Final

_INTERRUPTED: Final = 130
"""As `ExitStatus` has it, which may not be imported by then."""


def main() -> None:
    """Runs the command of this process's arguments, and exits with its status."""
    try:
        # Only here, because Ctrl-C may come while they are imported, which takes a moment.
        from broker.cli.app import run  # noqa: PLC0415 - see above
        from broker.cli.ending import settled  # noqa: PLC0415 - likewise

        status = settled(run(sys.argv[1:], environ=os.environ))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    sys.exit(status)


if __name__ == "__main__":
    main()
