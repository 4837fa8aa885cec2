"""The tools around the protos: what is committed is what they write, and buf judges as it should.

The compiler and buf are run, because their judgement is what is tested.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2
from protos.generate import PROJECT, PROTOS, breaking, check, lint, stale, write

SERVICE = "broker/v1/token_service.proto"


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """Returns a copy of the protos that may be spoilt."""
    shutil.copytree(PROTOS / "broker", tmp_path / "broker")
    return tmp_path


def edit(protos: Path, old: str, new: str) -> None:
    """Replaces text in the proto of TokenService."""
    text = (protos / SERVICE).read_text()
    assert old in text
    (protos / SERVICE).write_text(text.replace(old, new))


def test_the_committed_code_is_what_the_protos_say_and_buf_finds_no_fault() -> None:
    assert check(PROTOS, PROJECT) == ""


def test_code_is_stale_when_a_proto_has_moved_on(edited: Path) -> None:
    edit(edited, "bool degraded = 9", "bool degraded = 10")

    assert "broker/v1/token_service_pb2.py" in stale(edited, PROJECT)


def test_code_of_a_proto_that_is_gone_is_stale_and_removed(tmp_path: Path) -> None:
    left = tmp_path / "broker" / "v1" / "gone_pb2.py"
    left.parent.mkdir(parents=True)
    left.touch()

    assert "broker/v1/gone_pb2.py" in stale(PROTOS, tmp_path)
    write(PROTOS, tmp_path)

    assert stale(PROTOS, tmp_path) == []
    assert not left.exists()


def test_lint_finds_a_comment_that_is_missing(edited: Path) -> None:
    edit(edited, "// Asks for the access token of one tenant.\n", "")

    assert 'Message "GetAccessTokenRequest" should have a non-empty comment' in lint(edited)


def test_lint_finds_a_name_that_is_against_the_standard(edited: Path) -> None:
    edit(edited, "bool degraded", "bool isDegraded")

    assert "lower_snake_case" in lint(edited)


def test_a_released_field_cannot_be_deleted(edited: Path) -> None:
    edit(edited, "bool degraded = 9", "// ")

    assert 'Previously present field "9" with name "degraded"' in breaking(edited)


def test_a_released_field_cannot_be_renamed_because_json_has_its_name(edited: Path) -> None:
    edit(edited, "bool degraded = 9", "bool worn = 9")

    assert 'from "degraded" to "worn"' in breaking(edited)


@pytest.mark.parametrize("option", ["go_package", "java_package"])
def test_released_code_cannot_move_to_another_package(edited: Path, option: str) -> None:
    edit(edited, f'option {option} = "', f'option {option} = "elsewhere.')

    assert f'File option "{option}" changed' in breaking(edited)


def test_a_field_may_be_added_to_what_was_released(edited: Path) -> None:
    edit(edited, "bool degraded = 9", "bool extra = 99;\n  bool degraded = 9")

    assert breaking(edited) == ""


def test_the_import_path_of_generated_code_is_the_path_of_its_proto() -> None:
    modules = [token_service_pb2, grant_service_pb2, operations_service_pb2]

    paths = [module.DESCRIPTOR.name for module in modules]

    assert [f"{path.removesuffix('.proto').replace('/', '.')}_pb2" for path in paths] == [
        module.__name__ for module in modules
    ]


def test_the_packages_that_a_caller_may_have_are_new_enough_for_the_generated_code() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    stubs = (PROJECT / "broker/v1/token_service_pb2_grpc.py").read_text()
    messages = (PROJECT / "broker/v1/token_service_pb2.py").read_text()

    grpc = re.findall(r"GRPC_GENERATED_VERSION = '(.+)'", stubs)
    protobuf = re.findall(r"# Protobuf Python Version: (.+)", messages)

    assert {f"grpcio>={grpc[0]}", f"protobuf>={protobuf[0]}"} <= set(project["dependencies"])
