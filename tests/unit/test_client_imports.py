"""What importing the client library costs a service, and that it knows every reason."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Final

import pytest

from broker.client.errors import BY_REASON
from broker.v1.errors_pb2 import ErrorReason
from support.source import ROOT

_MODULES: Final = {
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "pyjwt": "jwt",
    "pyyaml": "yaml",
}
"""Of the packages whose module is called otherwise."""

_WITHOUT: Final = """
import sys

missing = sys.argv[2].split()

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
__import__(sys.argv[1])
print(*sys.modules)
"""


def extra(name: str) -> set[str]:
    """Returns the modules of an extra's packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {each.partition(">")[0] for each in project["optional-dependencies"][name]}
    return {_MODULES.get(each, each) for each in packages}


def loaded_by(module: str, *, without: set[str]) -> set[str]:
    """Returns what is loaded in an interpreter of its own in which some modules are not there."""
    listed = subprocess.run(
        [sys.executable, "-c", _WITHOUT, module, " ".join(without)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    return set(listed.stdout.split())


def test_the_client_library_needs_and_loads_nothing_of_the_server() -> None:
    loaded = loaded_by("broker.client", without=extra("server"))

    ours = {each for each in loaded if each.startswith("broker.")}
    assert {".".join(each.split(".")[:2]) for each in ours} == {"broker.client", "broker.v1"}


def test_the_test_kit_needs_what_its_extra_has_and_no_stores() -> None:
    loaded = loaded_by("broker.testing", without=extra("server") - extra("testing"))

    rooms = {".".join(each.split(".")[:2]) for each in loaded}
    assert rooms & {"broker.store", "broker.lease", "broker.pleo", "broker.config"} == set()


def test_the_test_kit_without_its_extra_says_what_to_install() -> None:
    with pytest.raises(AssertionError, match=r"pip install 'pleo-token-broker\[testing\]'"):
        loaded_by("broker.testing", without=extra("server"))


def test_the_pytest_plugin_loads_nothing_before_it_is_asked() -> None:
    loaded = loaded_by("broker.pytest_fixtures", without=extra("server"))

    assert not any(each.startswith(("grpc", "httpx", "google")) for each in loaded)


def test_what_needs_the_server_is_found() -> None:
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        loaded_by("broker.store.pool", without=extra("server"))


def test_every_reason_of_the_proto_has_its_exception() -> None:
    reasons = {each.removeprefix("ERROR_REASON_") for each in ErrorReason.keys()}  # noqa: SIM118 - a wrapper, not a mapping

    assert set(BY_REASON) == reasons - {"UNSPECIFIED"}
