"""Where the command line encrypts, and where it refuses to speak."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.channel import is_local, open_channel
from broker.cli.failing import CommandFailed, ExitStatus
from broker.config import ClientSettings


def refusal(environ: dict[str, str]) -> str:
    """Returns why no channel is made; empty where one is."""
    try:
        open_channel(ClientSettings.from_environ(environ)).close()
    except CommandFailed as failure:
        return failure.message if failure.status is ExitStatus.WRONG_USE else "another status"
    return ""


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "[::1]:1", "localhost:1", "dns:///localhost:1", "unix:/run/x"]
)
def test_loopback_stays_on_this_machine(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize(
    "target", ["broker:1", "10.0.0.1:1", "dns:///broker:1", "localhost.example:1", "broker", ""]
)
def test_everything_else_leaves_this_machine(target: str) -> None:
    assert not is_local(target)


def test_clear_text_is_for_loopback_only() -> None:
    assert refusal({"BROKER_ADDRESS": "127.0.0.1:1"}) == ""
    assert "BROKER_CA_FILE" in refusal({"BROKER_ADDRESS": "broker.example:1"})


def test_a_mesh_may_encrypt_instead() -> None:
    assert refusal({"BROKER_ADDRESS": "broker.example:1", "BROKER_INSECURE": "true"}) == ""


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"BROKER_CLIENT_CERT_FILE": "c"}, "BROKER_CLIENT_KEY_FILE"),
        ({"BROKER_CLIENT_KEY_FILE": "k"}, "BROKER_CLIENT_CERT_FILE"),
        ({"BROKER_CLIENT_KEY_FILE": "k", "BROKER_CLIENT_CERT_FILE": "c"}, "BROKER_CA_FILE"),
    ],
)
def test_parts_of_tls_come_together(environ: dict[str, str], missing: str) -> None:
    assert f"{missing}: expected a value" in refusal(environ)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    told = refusal({"BROKER_CA_FILE": str(tmp_path / "ca.crt")})

    assert told == f"BROKER_CA_FILE: {tmp_path / 'ca.crt'}: No such file or directory"
