"""What importing the client library costs a service, and that it knows every reason."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from broker.client.errors import BY_REASON
from broker.v1.errors_pb2 import ErrorReason
from support.source import ROOT

_SERVER: Final = {
    "asyncpg",
    "redis",
    "broker.config",
    "broker.domain",
    "broker.lease",
    "broker.rpc",
    "broker.service",
    "broker.store",
}

_LIST: Final = "import sys, broker.client; print(*sys.modules)"


def test_the_client_library_loads_nothing_of_the_server() -> None:
    listed = subprocess.run(  # its own interpreter: this one has loaded everything
        [sys.executable, "-c", _LIST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(listed.stdout.split())

    assert "broker.client" in loaded
    assert loaded & _SERVER == set()


def test_every_reason_of_the_proto_has_its_exception() -> None:
    reasons = {each.removeprefix("ERROR_REASON_") for each in ErrorReason.keys()}  # noqa: SIM118 - a wrapper, not a mapping

    assert set(BY_REASON) == reasons - {"UNSPECIFIED"}
