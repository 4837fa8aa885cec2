"""The command line as a whole: what there is, how commands end, what they never say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from broker.cli.hints import HINTS
from broker.v1.errors_pb2 import ErrorReason
from support.cli import run_here

COMMANDS = [
    "serve",
    "dev",
    "sandbox",
    "migrate",
    "doctor",
    "keys",
    "connect",
    "import",
    "get",
    "grants",
    "revoke",
    "guard",
]

SECRET = "correct-horse-battery"


class Exploding(Mapping[str, str]):
    """Environment variables that nobody can read."""

    def __getitem__(self, name: str) -> str:
        raise KeyError(name)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_command(command: str) -> None:
    assert f" {command} " in run_here("--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_what_it_does(command: str) -> None:
    ended = run_here(command, "--help")

    assert ended.status == 0
    assert "Usage: token-broker" in ended.stdout


def test_the_version_is_told() -> None:
    ended = run_here("--version")

    assert (ended.status, ended.stdout) == (0, "0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["keys"],
        ["nope"],
        ["get"],
        ["get", "a b"],
        ["get", "acme", "--nope"],
        ["revoke", "acme"],
        ["revoke", "acme", "--reason", " "],
        ["guard"],
        ["guard", "confirm"],
        ["guard", "discard", "--reason", " "],
        ["guard", "forget", "--reason", "OPS-17"],
        ["grants", "--state", "asleep"],
        ["import"],
        ["import", "acme", "--file", "-"],
        ["import", "--file", "-", "--replace"],
        ["import", "--file", "-", "--concurrency", "0"],
    ],
)
def test_wrong_use_ends_with_two(arguments: list[str]) -> None:
    ended = run_here(*arguments)

    assert ended.status == 2
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("arguments", [["get", "a b"], ["import", "acme", SECRET]])
def test_wrong_use_repeats_no_value(arguments: list[str]) -> None:
    said = run_here(*arguments).said

    assert said.startswith("error: ")
    assert not any(value in said for value in ("a b", SECRET))


def test_a_defect_is_told_without_traceback_and_words() -> None:
    ended = run_here("grants", environ=Exploding())

    assert ended.status == 1
    assert ended.stderr.startswith("error: unexpected RuntimeError at ")
    assert SECRET not in ended.said
    assert "Traceback" not in ended.said


def test_all_wrong_settings_are_named_without_their_values() -> None:
    environ = {"BROKER_LOG_LEVEL": SECRET, "BROKER_HOME": f"{SECRET}!"}

    ended = run_here("grants", environ=environ)

    assert ended.status == 2
    assert all(name in ended.stderr for name in environ)
    assert SECRET not in ended.said


def test_an_unknown_name_is_a_warning_with_the_nearest() -> None:
    environ = {"BROKER_ADRESS": "x", "BROKER_ADDRESS": "broker.example:443"}

    ended = run_here("grants", environ=environ)

    assert "warning: BROKER_ADRESS: no setting has this name; did you mean BROKER_ADDRESS?" in (
        ended.stderr.splitlines()
    )


def test_every_reason_has_a_hint() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - no mapping

    assert reasons - HINTS.keys() == {"UNSPECIFIED"}
