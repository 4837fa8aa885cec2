"""Reads the policy file: YAML to rules, or everything that is wrong with it, line by line.

Reads the nodes rather than the values, because only they know their lines; and because YAML's own
reading lets a key that stands twice pass in silence, so that the second rule about `tenants` would
replace the first. What is wrong is told with what was expected, and what is unknown with the name
that it resembles.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import yaml

from broker.domain.fields import check_scopes, check_tenant
from broker.domain.policy import Policy, Rule, Tenants
from broker.ports import Observer
from broker.rpc.caller import ANONYMOUS, IDENTITY
from broker.rpc.methods import ABOUT, DELETE_AT_PROVIDER, HAND_OUT, matching
from broker.rpc.reloading import Contents, FilesUnusableError, Reloaded

_KEYS: Final = ("identity", "rpcs", "tenants", "scopes")
_RPCS: Final = (*ABOUT, DELETE_AT_PROVIDER)

# libyaml's parser where there is one: a large file takes a tenth of the time.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MOST_PROBLEMS: Final = 20
"""Told at once, as many as fit on a screen."""


class PolicyUnusableError(FilesUnusableError):
    """The policy file is missing, or has mistakes: all of them, with their lines."""


def load_policy(path: Path, *, observer: Observer) -> Reloaded[Policy]:
    """Reads a policy, and again when its file changes.

    Raises:
        FilesUnusableError: it cannot be read, or is no policy.
    """
    return Reloaded(
        "policy", [path], parse=lambda contents: parse_policy(path, contents), observer=observer
    )


def parse_policy(path: Path, contents: Contents) -> Policy:
    """Reads the content of a policy file.

    Raises:
        PolicyUnusableError: with all that is wrong.
    """
    reading = _Reading()
    try:
        root = yaml.compose(contents[0].decode(), Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        # The commonest mistake, of which YAML says something about an alias.
        star = ' (a pattern that begins with `*` wants quotes: "*")' if b"*" in contents[0] else ""
        reading.say(error.problem_mark, f"expected YAML: {error.problem}{star}")
    except (UnicodeDecodeError, yaml.YAMLError):
        reading.say(None, "expected YAML in UTF-8")
    else:
        reading.read(root)
    if reading.problems:
        told = [f"{path}: {problem}" for problem in reading.problems[:_MOST_PROBLEMS]]
        raise PolicyUnusableError("; ".join(told))
    return Policy(rules=tuple(reading.rules))


class _Reading:
    """One reading of one file: the rules, and what is wrong."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.problems: list[str] = []

    def say(self, mark: yaml.Mark | None, problem: str) -> None:
        """Notes what is wrong."""
        self.problems.append(problem if mark is None else f"line {mark.line + 1}: {problem}")

    def read(self, root: yaml.Node | None) -> None:
        """Reads the file from its root; None: it is empty."""
        if root is None:
            self.say(None, "expected `callers:` with a list of rules")
            return
        found = self._mapping(root, ("callers",), ("callers",))
        if "callers" in found:
            for each in self._sequence(found["callers"], "callers: expected a list of rules"):
                self._rule(each)

    def _rule(self, node: yaml.Node) -> None:
        before = len(self.problems)
        found = self._mapping(node, _KEYS, ("identity", "rpcs", "tenants"))
        identity = self._identity(found["identity"]) if "identity" in found else ""
        rpcs = frozenset(self._rpcs(found["rpcs"])) if "rpcs" in found else frozenset()
        tenants = list(self._tenants(found["tenants"])) if "tenants" in found else []
        scopes = (
            frozenset(self._scopes(found["scopes"], rpcs)) if "scopes" in found else frozenset()
        )
        if len(self.problems) == before:
            self.rules.append(
                Rule(identity=identity, rpcs=rpcs, tenants=Tenants.matching(tenants), scopes=scopes)
            )

    def _identity(self, node: yaml.Node) -> str:
        text = self._text(node)
        if text is None or not (IDENTITY.fullmatch(text) or text == ANONYMOUS):
            self.say(
                node.start_mark,
                "identity: expected uri:… or dns:… of a certificate, sa:… of a service account,"
                f" or {ANONYMOUS}",
            )
            return ""
        # DNS knows no case, so identities of that kind are told in small letters.
        return text.lower() if text.startswith("dns:") else text

    def _rpcs(self, node: yaml.Node) -> Iterator[str]:
        for mark, text in self._texts(node, "rpcs: expected a list as [TokenService/*]"):
            rpcs = matching(text)
            if not rpcs:
                self.say(mark, f"rpcs: expected a call of the API{_resembles(text, _RPCS)}")
            yield from rpcs

    def _tenants(self, node: yaml.Node) -> Iterator[str]:
        for mark, text in self._texts(node, 'tenants: expected a list as ["acme", "eu/*"]'):
            # Without the `*` it must be as a tenant may be, and not longer.
            rest = text.removesuffix("*")
            if (rest or not text) and check_tenant(rest) is not None:
                self.say(mark, "tenants: expected a tenant, a prefix with `*` at its end, or `*`")
            yield text

    def _scopes(self, node: yaml.Node, rpcs: frozenset[str]) -> Iterator[str]:
        if rpcs and HAND_OUT.isdisjoint(rpcs):
            self.say(
                node.start_mark,
                "scopes: expected only in a rule for a call of TokenService, which hands tokens"
                " out; elsewhere they would mean nothing",
            )
        for mark, text in self._texts(node, 'scopes: expected a list as ["export-items:read"]'):
            if check_scopes([text]):
                self.say(mark, "scopes: expected a scope of OAuth, without blanks")
            yield text

    def _mapping(
        self, node: yaml.Node, known: tuple[str, ...], required: tuple[str, ...]
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.say(node.start_mark, f"expected {', '.join(f'`{key}:`' for key in known)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self._text(key_node) or ""
            if key not in known:
                expected = f"expected one of {', '.join(known)}{_resembles(key, known)}"
                self.say(key_node.start_mark, f"unknown key; {expected}")
            elif key in found:
                self.say(key_node.start_mark, f"{key}: expected once in a rule")
            found[key] = value
        for key in required:
            if key not in found:
                self.say(node.start_mark, f"expected `{key}:`, which is missing")
        return found

    def _sequence(self, node: yaml.Node, expected: str) -> list[yaml.Node]:
        if isinstance(node, yaml.SequenceNode) and node.value:
            return list(node.value)
        # An empty list would allow nothing, or ask nothing, and read as the opposite.
        self.say(node.start_mark, f"{expected}, with something in it")
        return []

    def _texts(self, node: yaml.Node, expected: str) -> Iterator[tuple[yaml.Mark | None, str]]:
        for each in self._sequence(node, expected):
            text = self._text(each)
            if text is None:
                self.say(each.start_mark, expected)
            else:
                yield each.start_mark, text

    def _text(self, node: yaml.Node) -> str | None:
        """Returns what is written; 42 or `true` without quotes are the text that stands there."""
        return node.value if isinstance(node, yaml.ScalarNode) else None


def _resembles(text: str, known: Iterable[str]) -> str:
    """Names the nearest; never repeats what was there, which may be anything."""
    found = difflib.get_close_matches(text, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
