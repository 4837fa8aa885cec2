"""The policy file: what it says, and what is said of its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.policy import EVERYBODY, Rule, Tenants
from broker.rpc.methods import ABOUT, About
from broker.rpc.policy_file import PolicyUnusableError, parse_policy

THE_EXAMPLE = """
callers:
  - identity: uri:spiffe://example.org/ns/export/sa/exporter   # a comment
    rpcs: [TokenService/*]
    tenants: ["acme", "eu/*"]
    scopes: ["export-items:read"]
  - identity: sa:system:serviceaccount:web:onboarding
    rpcs: [GrantService/StartAuthorization, GrantService/RevokeGrant#provider]
    tenants: ["*"]
"""

PATH = Path("policy.yaml")


def read(text: str) -> tuple[Rule, ...]:
    return parse_policy(PATH, (text.encode(),)).rules


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyUnusableError) as refused:
        read(text)
    return [
        each.removeprefix("policy.yaml: ") for each in str(refused.value).split("; policy.yaml")
    ]


def a_rule(**changes: str) -> str:
    fields = {"identity": "dns:web", "rpcs": "[TokenService/*]", "tenants": "[acme]"} | changes
    lines = [f"    {name}: {value}" for name, value in fields.items() if value]
    return "\n".join(["callers:", "  -", *lines])


def test_the_example_of_the_contract_is_read() -> None:
    assert read(THE_EXAMPLE) == (
        Rule(
            identity="uri:spiffe://example.org/ns/export/sa/exporter",
            rpcs=frozenset(rpc for rpc in ABOUT if rpc.startswith("TokenService/")),
            tenants=Tenants(literals=frozenset({"acme"}), prefixes=("eu/",)),
            scopes=frozenset({"export-items:read"}),
        ),
        Rule(
            identity="sa:system:serviceaccount:web:onboarding",
            rpcs=frozenset(
                {"GrantService/StartAuthorization", "GrantService/RevokeGrant#provider"}
            ),
            tenants=EVERYBODY,
        ),
    )


@pytest.mark.parametrize("pattern", ["GrantService/*", "GrantService/Revoke*", "*"])
def test_no_star_deletes_at_the_provider(pattern: str) -> None:
    (rule,) = read(a_rule(rpcs=f'["{pattern}"]'))

    assert "GrantService/RevokeGrant" in rule.rpcs
    assert "GrantService/RevokeGrant#provider" not in rule.rpcs


@pytest.mark.parametrize(
    ("pattern", "calls"),
    [
        ("*", set(ABOUT)),
        ("GrantService/Get*", {"GrantService/GetGrant"}),
        ("TokenService/*", {rpc for rpc in ABOUT if rpc.startswith("TokenService/")}),
    ],
)
def test_calls_have_the_patterns_of_tenants(pattern: str, calls: set[str]) -> None:
    (rule,) = read(a_rule(rpcs=f'["{pattern}"]'))

    assert rule.rpcs == calls


def test_names_of_hosts_are_in_small_letters() -> None:
    (rule,) = read(a_rule(identity="dns:Web.Example.ORG"))

    assert rule.identity == "dns:web.example.org"


MISTAKES = {
    "an empty file": ("", "expected `callers:` with a list of rules"),
    "no mapping": ("- callers", "line 1: expected `callers:`"),
    "another key at the top": (
        "version: 1\n" + a_rule(),
        "line 1: unknown key; expected one of callers",
    ),
    "no callers": (
        "callers: []",
        "line 1: callers: expected a list of rules, with something in it",
    ),
    "a misspelt key": (
        a_rule(tenant="[acme]"),
        "line 6: unknown key; expected one of identity, rpcs, tenants, scopes; did you mean ten",
    ),
    "a key twice": (
        a_rule() + "\n    tenants: ['*']",
        "line 6: tenants: expected once in a rule",
    ),
    "no identity": (a_rule(identity=""), "line 3: expected `identity:`, which is missing"),
    "no tenants": (a_rule(tenants=""), "line 3: expected `tenants:`, which is missing"),
    "an identity of no kind": (a_rule(identity="web"), "line 3: identity: expected uri:…"),
    "an identity with a blank": (a_rule(identity="dns:a b"), "line 3: identity: expected uri:…"),
    "no calls": (a_rule(rpcs="[]"), "line 4: rpcs: expected a list as [TokenService/*], with"),
    "a call instead of calls": (a_rule(rpcs="TokenService/*"), "line 4: rpcs: expected a list"),
    "an unknown call": (
        a_rule(rpcs="[TokenService/GetAcessToken]"),
        "line 4: rpcs: expected a call of the API; did you mean TokenService/GetAccessToken?",
    ),
    "an unknown service": (a_rule(rpcs="[Tokens/*]"), "line 4: rpcs: expected a call of the API"),
    "a star within a call": (a_rule(rpcs="[Token*/*]"), "line 4: rpcs: expected a call of the API"),
    "no patterns": (a_rule(tenants="[]"), "line 5: tenants: expected a list"),
    "an empty pattern": (a_rule(tenants='[""]'), "line 5: tenants: expected a tenant, a prefix"),
    "a star within": (a_rule(tenants='["a*b"]'), "line 5: tenants: expected a tenant, a prefix"),
    "a pattern of patterns": (a_rule(tenants="[[acme]]"), "line 5: tenants: expected a list as"),
    "a bare star": (a_rule(tenants="[*]"), "line 5: expected YAML: "),
    "no scopes": (a_rule(scopes="[]"), "line 6: scopes: expected a list"),
    "a scope with a blank": (a_rule(scopes='["a b"]'), "line 6: scopes: expected a scope of OAuth"),
    "scopes where no token is handed out": (
        a_rule(rpcs="[GrantService/GetGrant]", scopes="[a]"),
        "line 6: scopes: expected only in a rule for a call of TokenService",
    ),
    "no YAML": ("callers: [", "line 2: expected YAML: "),
    "two documents": (a_rule() + "\n---\n" + a_rule(), "line 6: expected YAML: "),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_what_was_expected(which: str) -> None:
    text, said = MISTAKES[which]

    assert any(each.startswith(said) for each in problems(text)), problems(text)


def test_a_bare_star_is_told_to_want_quotes() -> None:
    assert 'wants quotes: "*"' in problems(a_rule(tenants="[*]"))[0]


def test_all_mistakes_are_told_at_once() -> None:
    text = a_rule(identity="web", rpcs="[X/Y]", tenants="[]")

    assert [each.partition("line ")[2][:1] for each in problems(text)] == ["3", "4", "5"]


def test_what_is_no_text_is_no_policy() -> None:
    with pytest.raises(PolicyUnusableError, match=r"policy.yaml: expected YAML in UTF-8"):
        parse_policy(PATH, (b"callers: \xff",))


def test_every_call_of_the_api_is_about_somebody() -> None:
    fleet = {rpc for rpc, about in ABOUT.items() if about is About.FLEET}
    several = {rpc for rpc, about in ABOUT.items() if about is About.SEVERAL}

    assert fleet == {
        "OperationsService/GetFleetStatus",
        "OperationsService/ReleaseGuard",
        "OperationsService/RewrapKeys",
    }
    assert several == {
        "TokenService/BatchGetAccessTokens",
        "TokenService/WatchAccessTokens",
        "GrantService/ListGrants",
    }


@given(
    place=st.integers(0, len(THE_EXAMPLE)),
    put=st.sampled_from(sorted("[]{}:,-*&!|>'\"%@`#?~\0\n\t ")) | st.text(max_size=4),
    cut=st.integers(0, 6),
)
def test_whatever_is_in_the_file_is_a_policy_or_a_list_of_mistakes(
    place: int, put: str, cut: int
) -> None:
    text = THE_EXAMPLE[:place] + put + THE_EXAMPLE[place + cut :]

    try:
        rules = read(text)
    except PolicyUnusableError as error:
        assert str(error).startswith("policy.yaml: ")  # noqa: PT017 - either is right
    else:
        assert rules
