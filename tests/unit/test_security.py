"""What deploy/SECURITY.md says is so: its tests, files, commands and settings exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FileDescriptor
from typer.main import get_command

from broker.cli.app import build_app
from broker.config import unknown_names
from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2
from support.source import ROOT

SECURITY = (ROOT / "deploy" / "SECURITY.md").read_text()

APIS = (grant_service_pb2, operations_service_pb2, token_service_pb2)

# Codes of errors are answered; an authorization code has the same name and comes in alone.
WHAT_STAYS = {"refresh_token", "code_verifier", "client_secret"}


def named_tests(text: str) -> list[str]:
    return re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", text)


def is_there(named: str) -> bool:
    """Whether there is such a file, and such a test in it."""
    file, _, name = named.partition("::")
    if not (ROOT / file).is_file():
        return False
    tree = ast.parse((ROOT / file).read_text())
    return not name or name in {
        each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def answers(api: FileDescriptor) -> Iterator[Descriptor]:
    """Gives what a file's calls answer."""
    for service in api.services_by_name.values():
        yield from (method.output_type for method in service.methods)


def fields_of(message: Descriptor) -> set[str]:
    """Returns the names of all fields in a message, however deep."""
    names, waiting, seen = set[str](), [message], set[str]()
    while waiting:
        each = waiting.pop()
        if each.full_name not in seen:
            seen.add(each.full_name)
            names |= {field.name for field in each.fields}
            waiting += [field.message_type for field in each.fields if field.message_type]
    return names


def test_every_test_that_the_page_names_exists() -> None:
    named = named_tests(SECURITY)

    assert [each for each in named if not is_there(each)] == []
    assert len(named) > 20


@pytest.mark.parametrize(
    "named", ["tests/unit/test_nothing.py", "tests/unit/test_security.py::test_nothing"]
)
def test_a_test_that_does_not_exist_is_found(named: str) -> None:
    assert not is_there(named)


def test_every_line_of_the_table_names_a_test() -> None:
    lines = [line for line in SECURITY.splitlines() if line.startswith("| ")][1:]

    assert [line for line in lines if not named_tests(line)] == []
    assert len(lines) > 8


def test_every_link_and_setting_of_the_page_exists() -> None:
    linked = re.findall(r"\]\(([^)#]+)", SECURITY)
    settings = re.findall(r"BROKER_[A-Z_]*[A-Z]", SECURITY)

    assert [each for each in linked if not (ROOT / "deploy" / each).exists()] == []
    assert list(unknown_names(dict.fromkeys(settings, ""))) == []
    assert linked
    assert settings


def test_every_command_of_the_page_exists() -> None:
    commands = getattr(get_command(build_app()), "commands", {})

    named = set(re.findall(r"token-broker ([a-z]+)", SECURITY))

    assert named - set(commands) == set()
    assert named


def test_no_answer_has_a_field_for_what_stays() -> None:
    answered = [each for api in APIS for each in answers(api.DESCRIPTOR)]

    told = {each.name: fields_of(each) & WHAT_STAYS for each in answered}

    assert {name: fields for name, fields in told.items() if fields} == {}
    assert any("access_token" in fields_of(each) for each in answered)
