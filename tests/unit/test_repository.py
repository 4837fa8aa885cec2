"""The project as a whole: who may import whom, what no file says, what every file has.

Each check is a function over text, so that a sample beside it shows that it can fail.
"""

from __future__ import annotations

import ast
import graphlib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support.source import ROOT, Module, module, modules, project_files

# What the standard library has that is a clock, chance, I/O or a log.
IMPURE = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "uuid",
}

# Rooms that may import these rooms and the standard library, and nothing else.
CLOSED_ROOMS = {
    "domain": {"domain"},
    "service": {"service", "domain", "ports"},
    "ports": {"ports", "domain"},
}

# Rooms that may import anything but these rooms.
FORBIDDEN_ROOMS = {
    "pleo": {"service", "rpc"},
    "store": {"service", "rpc"},
    "lease": {"service", "rpc"},
    "rpc": {"store", "lease", "pleo"},
}

# Instruments of development, and who may use them.
INSTRUMENTS = {"sandbox": {"cli", "dev"}, "dev": {"cli"}}

# The packages of pyproject.toml's `dependencies`, as they are imported.
CLIENT_PACKAGES = {"google", "grpc", "grpc_status", "httpx"}

PACKAGE_INDEX = re.compile(
    r"pypi\.(org|io)|pythonhosted\.org|artifactory|devpi|nexus\.|registry\.npmjs|index-url=",
    re.IGNORECASE,
)
MACHINE_PATH = re.compile(r"(?<![\w.:/>$}-])/(root|home|Users|work|tmp)\b")

# It names the system's own directory for temporary files, because $TMPDIR may not do.
MAY_NAME_TMP = {"broker/dev/rundir.py"}

NEWER_THAN_MAKE_3_81 = re.compile(
    r"^\s*\.(ONESHELL|RECIPEPREFIX|EXTRA_PREREQS|NOTINTERMEDIATE|WAIT)\b"
    r"|^[^\t#][^#]*?(!=|::=|&:)"
    r"|^\s*define\s+\S+\s*[:?+]?="
    r"|^\s*(undefine|private|load|-load)\s"
    r"|\$[({](file|guile|let|intcmp)\s"
)


def room_of(imported: str) -> str:
    """Returns the room of something imported from the broker."""
    return ".".join(imported.split(".")[1:2])


def is_ours(imported: str) -> bool:
    return imported.split(".", maxsplit=1)[0] == "broker"


def is_standard(imported: str) -> bool:
    return imported.split(".", maxsplit=1)[0] in sys.stdlib_module_names


def outside_its_room(importing: Module) -> list[str]:
    """Returns imports that a closed room must not have."""
    allowed = CLOSED_ROOMS.get(importing.room)
    if allowed is None:
        return []
    return [
        name
        for name in importing.imports()
        if (room_of(name) not in allowed if is_ours(name) else not is_standard(name))
    ]


def against_the_flow(importing: Module) -> list[str]:
    """Returns imports of rooms that this room must not know."""
    rooms = {name: room_of(name) for name in importing.imports() if is_ours(name)}
    forbidden = FORBIDDEN_ROOMS.get(importing.room, set())
    return [
        name
        for name, room in rooms.items()
        if room in forbidden or not may_use_instrument(importing.room, room)
    ]


def may_use_instrument(room: str, used: str) -> bool:
    return room == used or used not in INSTRUMENTS or room in INSTRUMENTS[used]


def impure(importing: Module) -> list[str]:
    """Returns what in the domain reads a clock, rolls dice, or reaches outside."""
    if importing.room != "domain":
        return []
    clocks = [
        ast.unparse(node)
        for node in ast.walk(importing.tree)
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}
        if ast.unparse(node.value).endswith(("datetime", "date"))
    ]
    return clocks + [name for name in importing.imports() if name.split(".")[0] in IMPURE]


def heavy_for_a_client(importing: Module) -> list[str]:
    """Returns what the client library needs beyond the packages that a caller installs."""
    if importing.room != "client":
        return []
    return [
        name
        for name in importing.imports()
        if (
            room_of(name) not in {"", "client", "v1"}
            if is_ours(name)
            else not is_standard(name) and name.split(".")[0] not in CLIENT_PACKAGES
        )
    ]


def without_docstring(read: Module) -> list[str]:
    return [] if ast.get_docstring(read.tree) else [read.name]


def loose_or_nameless_tasks(read: Module) -> list[str]:
    """Returns tasks that no TaskGroup owns, and tasks that a log could not tell apart."""
    return [
        ast.unparse(node)
        for node in ast.walk(read.tree)
        if isinstance(node, ast.Call)
        if is_loose(ast.unparse(node.func)) or is_nameless(node)
    ]


def is_loose(called: str) -> bool:
    owner, _, what = called.rpartition(".")
    return what == "ensure_future" or (
        what == "create_task" and re.search(r"(^|asyncio|loop|loop\(\))$", owner) is not None
    )


def is_nameless(call: ast.Call) -> bool:
    named = any(argument.arg == "name" for argument in call.keywords)
    return ast.unparse(call.func).endswith(".create_task") and not named


def import_cycle(all_modules: Sequence[Module]) -> list[str]:
    """Returns modules that import one another when loaded, first and last the same."""
    names = {each.name for each in all_modules}
    graph = {
        each.name: {found for name in each.imports_when_loaded() if (found := owner(name, names))}
        - {each.name}
        for each in all_modules
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def owner(imported: str, names: set[str]) -> str | None:
    """Returns the module that something is imported from: itself one, or part of one."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in names), None)


CHECKS: list[tuple[Callable[[Module], list[str]], str, str]] = [
    (outside_its_room, "broker.domain.x", "import httpx"),
    (outside_its_room, "broker.domain.x", "from broker.service import obtain"),
    (outside_its_room, "broker.service.x", "from broker.store import pool"),
    (outside_its_room, "broker.service.x", "def later():\n    import asyncpg"),
    (against_the_flow, "broker.store.x", "from broker.service import obtain"),
    (against_the_flow, "broker.rpc.x", "from broker import lease"),
    (against_the_flow, "broker.app", "from broker.sandbox import server"),
    (against_the_flow, "broker.sandbox.x", "import broker.dev.servers"),
    (impure, "broker.domain.x", "from time import monotonic"),
    (impure, "broker.domain.x", "import datetime\ndatetime.datetime.now()"),
    (impure, "broker.domain.x", "from datetime import date\nx = date.today"),
    (heavy_for_a_client, "broker.client.x", "import redis.asyncio"),
    (heavy_for_a_client, "broker.client.x", "from broker.domain import grant"),
    (without_docstring, "broker.x", "import os"),
    (loose_or_nameless_tasks, "broker.x", "asyncio.create_task(f(), name='f')"),
    (loose_or_nameless_tasks, "broker.x", "create_task(f(), name='f')"),
    (loose_or_nameless_tasks, "broker.x", "asyncio.get_running_loop().create_task(f(), name='f')"),
    (loose_or_nameless_tasks, "broker.x", "asyncio.ensure_future(f())"),
    (loose_or_nameless_tasks, "broker.x", "tasks.create_task(f())"),
]

ALLOWED = """
'''A contract.'''
import dataclasses
from datetime import datetime, timedelta
from broker.domain.grant import Grant
def later(now: datetime) -> datetime:
    tasks.create_task(f(), name="f")
    return now + timedelta(seconds=1)
"""


@pytest.fixture(scope="module")
def broker() -> list[Module]:
    return modules("broker")


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _, _ in CHECKS))
def test_every_module_of_the_broker_keeps_the_rules(
    check: Callable[[Module], list[str]], broker: list[Module]
) -> None:
    found = {each.name: broken for each in broker if (broken := check(each))}

    assert found == {}


@pytest.mark.parametrize(("check", "name", "text"), CHECKS)
def test_a_broken_rule_is_found(check: Callable[[Module], list[str]], name: str, text: str) -> None:
    assert check(module(name, text)) != []


@pytest.mark.parametrize("check", dict.fromkeys(check for check, _, _ in CHECKS))
def test_a_kept_rule_is_not_found_broken(check: Callable[[Module], list[str]]) -> None:
    assert check(module("broker.domain.sample", ALLOWED)) == []


def test_no_modules_import_one_another(broker: list[Module]) -> None:
    assert import_cycle(broker) == []


def test_a_cycle_is_found_and_one_for_types_only_is_not() -> None:
    first = module("broker.a", "from broker.b import thing")
    second = module("broker.b", "import broker.a")
    for_types = module("broker.b", "if TYPE_CHECKING:\n    from broker.a import other")

    assert set(import_cycle([first, second])) == {"broker.a", "broker.b"}
    assert import_cycle([first, for_types]) == []


def test_every_module_of_the_tests_has_a_docstring() -> None:
    assert [name for each in modules("tests") for name in without_docstring(each)] == []


def texts() -> Iterator[tuple[str, str]]:
    """Gives the project's files that hold text, except this one, which names what no other may."""
    for path in project_files():
        if path != Path(__file__):
            yield str(path.relative_to(ROOT)), path.read_bytes().decode(errors="replace")


def test_no_file_names_a_package_index() -> None:
    assert [name for name, text in texts() if PACKAGE_INDEX.search(text)] == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    named = {
        name: match.group()
        for name, text in texts()
        if name not in MAY_NAME_TMP and (match := MACHINE_PATH.search(text))
    }

    assert named == {}


@pytest.mark.parametrize("place", ["root", "home", "Users", "work", "tmp"])
@pytest.mark.parametrize("text", ["= '/{}/me/x'", "cd /{}/main", "/{}/me", "(/{})"])
def test_a_place_on_a_machine_is_recognised(place: str, text: str) -> None:
    assert MACHINE_PATH.search(text.format(place))


@pytest.mark.parametrize("place", ["root", "home", "Users", "work", "tmp"])
@pytest.mark.parametrize("text", ["https://x.example/{}/", "${{ROOT}}/{}", "a/{}/b", "./{}"])
def test_a_path_that_means_the_same_everywhere_is_let_be(place: str, text: str) -> None:
    assert not MACHINE_PATH.search(text.format(place))


def locked(name: str) -> dict[str, str]:
    """Returns the packages of a lock file, each with its version, marker and hashes."""
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    return {entry.partition("==")[0]: entry.partition("==")[2] for entry in entries}


LOCKS = ["requirements.lock", "requirements-dev.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    entries = locked(name)

    assert [package for package, rest in entries.items() if "--hash=sha256:" not in rest] == []
    assert not re.search(r"://|^\s*-[ief]\b|^--", (ROOT / name).read_text(), re.MULTILINE)


def test_both_lock_files_agree() -> None:
    server, developer = (locked(name) for name in LOCKS)

    assert {package: developer.get(package) for package in server} == server


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["server"], *extras["dev"]]

    packages = {re.split(r"[^\w.-]", requirement)[0] for requirement in named}

    assert packages - locked("requirements-dev.lock").keys() == set()


LINT_SECTION = re.compile(
    r"^\[tool\.ruff\.lint(?:\.per-file-ignores)?\]\n(.*?)(?=^\[|\Z)", re.MULTILINE | re.DOTALL
)


def ignored_without_reason(text: str) -> list[str]:
    """Returns the lines of ruff's settings that leave out a rule and do not say why."""
    lines = [line for section in LINT_SECTION.findall(text) for line in section.splitlines()]
    rules = [line for line in lines if re.match(r'\s+"[A-Z]+\d*"', line)]
    return [line for line in rules if not re.search(r"# (\S+ \S|likewise)", line)]


def test_every_rule_left_out_has_its_reason() -> None:
    assert ignored_without_reason((ROOT / "pyproject.toml").read_text()) == []


def test_a_rule_left_out_in_silence_is_found() -> None:
    sample = '[tool.ruff.lint]\nignore = [\n  "D105", # magic tricks\n  "E501",\n]\n'

    assert ignored_without_reason(sample) == ['  "E501",']


def newer_syntax(text: str) -> list[str]:
    return [line for line in text.splitlines() if NEWER_THAN_MAKE_3_81.search(line)]


def test_the_makefile_is_for_make_3_81() -> None:
    assert newer_syntax((ROOT / "Makefile").read_text()) == []


@pytest.mark.parametrize(
    "line",
    [".ONESHELL:", "NOW != date", "A ::= b", "a b &: c", "define x =", "undefine x", "$(file <x)"],
)
def test_newer_makefile_syntax_is_found(line: str) -> None:
    assert newer_syntax(line) == [line]


def test_every_target_of_the_makefile_tells_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (help .*)$", makefile, re.MULTILINE)

    told = re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE)

    assert declared is not None
    assert told == declared.group(1).split()


def test_what_ci_runs_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
