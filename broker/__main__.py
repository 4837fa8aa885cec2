"""`token-broker`, also `python -m broker`."""

from __future__ import annotations

import os
import sys

from broker.cli.app import run


def main() -> None:
    """Runs the command of this process's arguments, and exits with its status."""
    sys.exit(run(sys.argv[1:], environ=os.environ))


if __name__ == "__main__":
    main()
