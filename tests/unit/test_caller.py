"""What a handler may ask of the caller, tenant by tenant."""

from __future__ import annotations

import pytest

from broker.domain.errors import CallerNotAllowed, ScopeMissing
from broker.domain.policy import Policy, Rule, Tenants
from broker.rpc.caller import ANONYMOUS, Caller, current_caller

WATCH = "TokenService/WatchAccessTokens"


def policy_for(*patterns: str, scopes: frozenset[str] = frozenset()) -> Policy:
    rule = Rule(
        identity="dns:web",
        rpcs=frozenset({WATCH}),
        tenants=Tenants.matching(patterns),
        scopes=scopes,
    )
    return Policy(rules=(rule,))


def caller_under(*policies: Policy) -> tuple[Caller, list[Policy]]:
    """Returns a caller, and the policies: the first one is in force."""
    in_force = list(policies)
    return Caller(identity="dns:web", rpc=WATCH, policy=lambda: in_force[0]), in_force


def test_each_tenant_is_allowed_or_refused_by_name() -> None:
    caller, _ = caller_under(policy_for("acme"))
    caller.check("acme")

    with pytest.raises(CallerNotAllowed) as refused:
        caller.check("other")

    assert refused.value.tenant == "other"
    assert refused.value.metadata == {"caller": "dns:web", "rpc": WATCH}


def test_a_stream_goes_by_the_policy_of_now() -> None:
    caller, in_force = caller_under(policy_for("acme"), policy_for("other"))
    caller.check("acme")

    del in_force[0]

    with pytest.raises(CallerNotAllowed):
        caller.check("acme")
    caller.check("other")


def test_missing_scopes_are_named() -> None:
    caller, _ = caller_under(policy_for("*", scopes=frozenset({"a", "b"})))
    caller.check_scopes("acme", ("a", "b", "c"))

    with pytest.raises(ScopeMissing) as refused:
        caller.check_scopes("acme", ("a",))

    assert refused.value.metadata == {"missing": "b"}


def test_without_a_gate_the_caller_is_nobody_and_may_everything() -> None:
    caller = current_caller()

    caller.check("acme")
    caller.check_scopes("acme", ())
    assert caller.identity == ANONYMOUS
