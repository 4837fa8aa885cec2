"""Who may call what, for which tenants. Deny by default: nothing is allowed that no rule allows.

Decides from rules that somebody else has read (`rpc/policy_file.py`), and knows neither files nor
how a caller proves its identity. An RPC is named as `TokenService/GetAccessToken`; deleting an
installation at Pleo is a further one, `GrantService/RevokeGrant#provider`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """A set of tenants: literals, prefixes, or all of them. Case counts."""

    literals: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    are_all: bool = False

    @classmethod
    def matching(cls, patterns: Iterable[str]) -> Tenants:
        """Returns the tenants of patterns: a literal, `prefix*`, or `*`; `*` crosses `/`.

        Raises:
            ValueError: a pattern is none of these.
        """
        all_patterns = tuple(patterns)
        prefixes = tuple(each[:-1] for each in all_patterns if each.endswith("*"))
        literals = frozenset(each for each in all_patterns if not each.endswith("*"))
        if any("*" in each or not each for each in literals) or any("*" in p for p in prefixes):
            raise ValueError("a `*` stands at the end of a pattern only")
        if "" in prefixes:
            return EVERYBODY
        return cls(literals=literals, prefixes=prefixes)

    def patterns(self) -> tuple[str, ...]:
        """Returns patterns of the same tenants, sorted."""
        if self.are_all:
            return ("*",)
        return tuple(sorted((*self.literals, *(f"{prefix}*" for prefix in self.prefixes))))

    def __contains__(self, tenant: str) -> bool:
        """Whether this tenant is one of them."""
        return self.are_all or tenant in self.literals or tenant.startswith(self.prefixes)

    def __or__(self, other: Tenants) -> Tenants:
        """Returns both sets as one."""
        if self.are_all or other.are_all:
            return EVERYBODY
        return Tenants(
            literals=self.literals | other.literals,
            prefixes=tuple(dict.fromkeys((*self.prefixes, *other.prefixes))),
        )


NOBODY: Final = Tenants()
EVERYBODY: Final = Tenants(are_all=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one identity may do."""

    identity: str
    rpcs: frozenset[str]
    tenants: Tenants
    scopes: frozenset[str] = frozenset()
    """The grant must hold these before its token is handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What one identity may do with one RPC."""

    rules: tuple[Rule, ...] = ()
    tenants: Tenants = NOBODY
    """Of all the rules together."""

    asks_scopes: bool = True
    """Whether a rule names scopes; most name none, and then there is nothing to compare."""

    def is_any(self) -> bool:
        """Whether it may be called at all."""
        return bool(self.rules)

    def allows(self, tenant: str) -> bool:
        """Whether it may be called for this tenant."""
        return tenant in self.tenants

    def allows_fleet(self) -> bool:
        """Whether it may be called where it concerns all tenants at once."""
        return self.tenants.are_all

    def missing_scopes(self, tenant: str, held: Collection[str]) -> tuple[str, ...]:
        """Returns which scopes the grant lacks; empty where one rule is content.

        Of several rules, those of the one that lacks the fewest.
        """
        if not self.asks_scopes:
            return ()
        lacking = [rule.scopes.difference(held) for rule in self.rules if tenant in rule.tenants]
        fewest = sorted(lacking, key=len)[:1]
        return tuple(sorted(*fewest)) if fewest else ()


NOTHING: Final = Permission()

ANYTHING: Final = Permission(
    rules=(Rule(identity="", rpcs=frozenset(), tenants=EVERYBODY),),
    tenants=EVERYBODY,
    asks_scopes=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All rules, prepared so that a decision costs one look-up."""

    rules: tuple[Rule, ...] = ()
    others: Permission = NOTHING
    """For whom and for what there is no rule."""

    _by_call: Mapping[tuple[str, str], Permission] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sorts the rules by who calls what."""
        by_call: defaultdict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in self.rules:
            for rpc in rule.rpcs:
                by_call[rule.identity, rpc].append(rule)
        object.__setattr__(
            self, "_by_call", {call: _permission(rules) for call, rules in by_call.items()}
        )

    def permission(self, identity: str, rpc: str) -> Permission:
        """Returns what this caller may do with this RPC."""
        return self._by_call.get((identity, rpc), self.others)


OPEN: Final = Policy(others=ANYTHING)
"""Everybody may do everything: for a listener on loopback that knows nobody."""


def _permission(rules: Collection[Rule]) -> Permission:
    tenants = NOBODY
    for rule in rules:
        tenants |= rule.tenants
    asks_scopes = any(rule.scopes for rule in rules)
    return Permission(rules=tuple(rules), tenants=tenants, asks_scopes=asks_scopes)
