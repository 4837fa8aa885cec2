"""Who may call what: patterns, rules, scopes, and that nothing is allowed by accident."""

from __future__ import annotations

import pytest

from broker.domain.policy import ANYTHING, EVERYBODY, OPEN, Policy, Rule, Tenants

EXPORTER = "uri:spiffe://example.org/exporter"
GET = "TokenService/GetAccessToken"
REVOKE = "GrantService/RevokeGrant"


def a_rule(*patterns: str, rpc: str = GET, scopes: tuple[str, ...] = ()) -> Rule:
    return Rule(
        identity=EXPORTER,
        rpcs=frozenset({rpc}),
        tenants=Tenants.matching(patterns),
        scopes=frozenset(scopes),
    )


@pytest.mark.parametrize(
    ("pattern", "tenant", "matches"),
    [
        ("acme", "acme", True),
        ("acme", "acme2", False),
        ("acme", "acm", False),
        ("acme", "Acme", False),
        ("eu/*", "eu/acme", True),
        ("eu/*", "eu/north/acme", True),
        ("eu/*", "eu/", True),
        ("eu/*", "eu", False),
        ("eu/*", "EU/acme", False),
        ("eu/*", "north/eu/acme", False),
        ("eu*", "europe", True),
        ("*", "anything/at:all", True),
    ],
)
def test_a_pattern_matches_as_it_is_written(pattern: str, tenant: str, *, matches: bool) -> None:
    assert (tenant in Tenants.matching([pattern])) is matches


@pytest.mark.parametrize("pattern", ["*a", "a*b", "a**", ""])
def test_a_star_stands_at_the_end_only(pattern: str) -> None:
    with pytest.raises(ValueError, match="at the end"):
        Tenants.matching([pattern])


def test_no_patterns_match_nobody() -> None:
    assert "acme" not in Tenants.matching([])


def test_two_sets_of_tenants_are_one() -> None:
    both = Tenants.matching(["acme", "eu/*"]) | Tenants.matching(["us/*", "eu/*"])

    assert both == Tenants(literals=frozenset({"acme"}), prefixes=("eu/", "us/"))


@pytest.mark.parametrize("first", [["*"], ["acme"]])
def test_everybody_and_somebody_is_everybody(first: list[str]) -> None:
    assert Tenants.matching(first) | Tenants.matching(["*"]) == EVERYBODY
    assert Tenants.matching(["*"]) | Tenants.matching(first) == EVERYBODY


def test_what_no_rule_allows_is_not_allowed() -> None:
    policy = Policy(rules=(a_rule("acme"),))

    assert policy.permission(EXPORTER, GET).allows("acme")
    assert not policy.permission(EXPORTER, GET).allows("other")
    assert not policy.permission(EXPORTER, REVOKE).is_any()
    assert not policy.permission("uri:spiffe://example.org/other", GET).is_any()


def test_rules_of_one_caller_add_up() -> None:
    policy = Policy(rules=(a_rule("acme"), a_rule("eu/*"), a_rule("us/*", rpc=REVOKE)))

    permission = policy.permission(EXPORTER, GET)

    assert permission.tenants == Tenants.matching(["acme", "eu/*"])


def test_the_fleet_is_for_those_who_may_do_it_to_all() -> None:
    some, all_of_them = (
        Policy(rules=(a_rule(pattern),)).permission(EXPORTER, GET) for pattern in ("a*", "*")
    )

    assert not some.allows_fleet()
    assert all_of_them.allows_fleet()


def test_an_open_policy_allows_everything_to_everybody() -> None:
    permission = OPEN.permission("anonymous", REVOKE)

    assert permission is ANYTHING
    assert permission.allows("acme")
    assert permission.allows_fleet()
    assert permission.missing_scopes("acme", ()) == ()


@pytest.mark.parametrize(
    ("held", "missing"),
    [(("a", "b", "c"), ()), (("a",), ("b",)), ((), ("a", "b"))],
)
def test_the_scopes_that_a_grant_lacks_are_named(
    held: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    permission = Policy(rules=(a_rule("*", scopes=("b", "a")),)).permission(EXPORTER, GET)

    assert permission.missing_scopes("acme", held) == missing


def test_one_rule_that_is_content_is_enough() -> None:
    rules = (a_rule("*", scopes=("a", "b")), a_rule("acme"), a_rule("eu/*", scopes=("c",)))
    permission = Policy(rules=rules).permission(EXPORTER, GET)

    assert permission.missing_scopes("acme", ()) == ()
    assert permission.missing_scopes("eu/acme", ()) == ("c",)
    assert permission.missing_scopes("us/acme", ()) == ("a", "b")


@pytest.mark.parametrize("patterns", [(), ("*",), ("acme", "eu/*"), ("a*", "b")])
def test_patterns_can_be_told_again(patterns: tuple[str, ...]) -> None:
    assert Tenants.matching(patterns).patterns() == patterns
