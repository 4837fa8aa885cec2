"""Reads the project's own files, for the tests of how they hang together. Runs none of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module of the project."""

    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part after `broker.`, or nothing for what lies above all rooms."""
        return ".".join(self.name.split(".")[1:2])

    def imports(self) -> list[str]:
        """Returns what it imports wherever it does so, each name in full."""
        return list(_imports(self.tree))

    def imports_when_loaded(self) -> list[str]:
        """Returns what is imported with it: not what functions and type checkers import."""
        return [name for node in _when_loaded(self.tree) for name in _imported(node)]


def module(name: str, text: str) -> Module:
    """Returns a module with this text."""
    return Module(name=name, tree=ast.parse(text))


def modules(folder: str) -> list[Module]:
    """Returns the modules below a folder, except those that protoc wrote."""
    return [
        module(_name(path), path.read_text())
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "_pb2" not in path.name
    ]


def project_files() -> Iterator[Path]:
    """Gives the files of the project, in git yet or not: all but what `.gitignore` names."""
    lines = (ROOT / ".gitignore").read_text().split()
    ignored = [line.rstrip("/") for line in lines] + [".git"]
    for path in sorted(ROOT.rglob("*")):
        parts = [Path(part) for part in path.relative_to(ROOT).parts]
        if path.is_file() and not any(part.match(name) for part in parts for name in ignored):
            yield path


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        yield from _imported(node)


def _imported(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=str(source), names=names):
            yield from (f"{source}.{alias.name}" for alias in names)
        case _:
            pass


def _when_loaded(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not _is_for_later(node):
            waiting += ast.iter_child_nodes(node)


def _is_for_later(node: ast.AST) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case _:
            return False
