"""Does `doctor --caller`: what the policy allows a caller, as the broker would read it now."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

import typer

from broker.cli.caller_checks import Unheard
from broker.cli.configured import read_settings
from broker.cli.failing import CommandFailed, ExitStatus
from broker.cli.showing import printable, show_json, show_table
from broker.config import Settings
from broker.domain.policy import Policy, Rule
from broker.rpc.caller import ANONYMOUS, IDENTITY
from broker.rpc.methods import ABOUT, DELETE_AT_PROVIDER, HAND_OUT, About
from broker.rpc.policy_file import load_policy
from broker.rpc.reloading import FilesUnusableError


def explain_caller(identity: str, environ: Mapping[str, str], *, as_json: bool) -> None:
    """Shows each call that a caller may make, for whom, and on what condition.

    Raises:
        CommandFailed: there is no policy, or nothing in it about this caller.
    """
    if IDENTITY.fullmatch(identity) is None and identity != ANONYMOUS:
        raise CommandFailed(
            f"an identity is uri:…, dns:…, sa:…, or {ANONYMOUS}", status=ExitStatus.WRONG_USE
        )
    identity = identity.lower() if identity.startswith("dns:") else identity
    policy = _policy(environ)
    allowed = [
        Allowance(rpc=rpc, rule=rule)
        for rpc in (*ABOUT, DELETE_AT_PROVIDER)
        for rule in policy.permission(identity, rpc).rules
    ]
    if as_json:
        show_json({"caller": identity, "allowed": [each.document() for each in allowed]})
    elif allowed:
        show_table(("call", "tenants", "only if"), [each.row() for each in allowed])
        typer.echo("Health and reflection need no rule. Everything else is refused.")
    if not allowed:
        raise CommandFailed(f"no rule names {printable(identity)}", hint=_hint(identity, policy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One rule that allows one call."""

    rpc: str
    rule: Rule

    @property
    def scopes(self) -> list[str]:
        """What the grant must hold."""
        return sorted(self.rule.scopes) if self.rpc in HAND_OUT else []

    @property
    def is_usable(self) -> bool:
        """Whether it can ever allow the call."""
        return ABOUT.get(self.rpc) is not About.FLEET or self.rule.tenants.are_all

    def document(self) -> dict[str, object]:
        """Returns it for programs."""
        return {
            "rpc": self.rpc,
            "tenants": list(self.rule.tenants.patterns()),
            "scopes": self.scopes,
            "usable": self.is_usable,
        }

    def row(self) -> tuple[str, str, str]:
        """Returns it for people."""
        condition = f"the grant holds {' '.join(self.scopes)}" if self.scopes else ""
        if not self.is_usable:
            condition = 'never: it is about the whole fleet, and needs "*"'
        return self.rpc, " ".join(self.rule.tenants.patterns()), condition


def _policy(environ: Mapping[str, str]) -> Policy:
    path = read_settings(Settings, environ).policy_file
    if path is None:
        raise CommandFailed("BROKER_POLICY_FILE: expected the path of the policy, and it is unset")
    try:
        return load_policy(path, observer=Unheard()).current
    except FilesUnusableError as error:
        raise CommandFailed(str(error)) from None


def _hint(identity: str, policy: Policy) -> str:
    known = sorted({rule.identity for rule in policy.rules})
    near = difflib.get_close_matches(identity, known, n=1)
    return f"the nearest one that has rules: {near[0]}" if near else "add a rule to the policy"
