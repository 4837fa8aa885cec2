"""What `doctor` says about callers, and what it explains of one of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from broker.cli.caller_checks import check_callers
from broker.cli.checks import Check, Outcome
from broker.config import ServeSettings
from support.certificates import A_DAY, Authority, Issued, dns
from support.cli import run_here
from support.tokens import Signer, key_set

POLICY = """
callers:
  - identity: dns:web
    rpcs: [TokenService/GetAccessToken]
    tenants: ["acme", "eu/*"]
    scopes: ["export-items:read"]
  - identity: dns:web
    rpcs: [GrantService/GetGrant, OperationsService/GetFleetStatus]
    tenants: ["eu/*"]
  - identity: sa:system:serviceaccount:web:onboarding
    rpcs: [GrantService/RevokeGrant#provider]
    tenants: ["*"]
"""

SERVE = {
    "BROKER_DATABASE_URL": "postgresql://broker@127.0.0.1/broker",
    "BROKER_REDIS_URL": "redis://127.0.0.1:6379/0",
    "BROKER_KEYSET_FILE": "keyset.json",
    "BROKER_PLEO_CLIENT_ID": "client-1",
    "BROKER_PLEO_CLIENT_SECRET": "correct-horse-battery",
}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def tls(tmp_path: Path, policy: Path) -> dict[str, str]:
    """The settings of an installation with mutual TLS that is well."""
    authority = Authority()
    cert, key = authority.issue(dns("broker.example"), ends=60 * A_DAY).write(tmp_path, "tls")
    (tmp_path / "ca.crt").write_bytes(Authority(ends=60 * A_DAY).cert)
    return {
        "BROKER_TLS_CERT_FILE": str(cert),
        "BROKER_TLS_KEY_FILE": str(key),
        "BROKER_TLS_CLIENT_CA_FILE": str(tmp_path / "ca.crt"),
        "BROKER_POLICY_FILE": str(policy),
    }


@pytest.fixture
def jwt(tmp_path: Path, policy: Path) -> dict[str, str]:
    """The settings of one with service-account tokens."""
    (tmp_path / "keys.json").write_bytes(key_set(Signer().jwk()))
    return {
        "BROKER_JWT_ISSUER": "https://issuer.example",
        "BROKER_JWT_AUDIENCE": "token-broker",
        "BROKER_JWT_JWKS": str(tmp_path / "keys.json"),
        "BROKER_POLICY_FILE": str(policy),
    }


async def checks(environ: dict[str, str]) -> list[Check]:
    return await check_callers(ServeSettings.from_environ({**SERVE, **environ}))


async def check(environ: dict[str, str], name: str) -> Check:
    """Returns the worst check of this name."""
    order = [Outcome.BAD, Outcome.WARNING, Outcome.OK]
    found = [each for each in await checks(environ) if each.name == name]
    return min(found, key=lambda each: order.index(each.outcome))


async def test_what_lets_callers_in_is_good(tls: dict[str, str], jwt: dict[str, str]) -> None:
    found = await checks({**tls, **jwt})

    assert [(each.name, each.outcome) for each in found] == [
        ("certificate", Outcome.OK),
        ("policy", Outcome.OK),
        ("issuer's keys", Outcome.OK),
    ]
    assert found[0].found.startswith("for broker.example, until 20")
    assert found[1].found == "3 rules for 2 callers"
    assert found[2].found == "1 keys of https://issuer.example"


async def test_without_any_of_it_loopback_is_open() -> None:
    assert [each.found for each in await checks({})] == [
        "no TLS: clear text, on loopback only",
        "none: everybody may do everything",
    ]


async def test_behind_a_mesh_without_identities_nobody_may_call() -> None:
    environ = {"BROKER_INSECURE": "true", "BROKER_GRPC_ADDRESS": "0.0.0.0:1"}

    assert [each.found for each in await checks(environ)] == [
        "no TLS: clear text, off loopback too (BROKER_INSECURE)",
        "none: nobody may call",
    ]


HOUR = timedelta(hours=1)

CERTIFICATES: dict[str, tuple[Issued, Outcome, str]] = {
    "expired": (
        Authority().issue(dns("web"), ends=-HOUR),
        Outcome.BAD,
        "for web, expired at",
    ),
    "early": (
        Authority().issue(dns("web"), starts=HOUR, ends=30 * A_DAY),
        Outcome.BAD,
        "for web, not valid before",
    ),
    "nameless": (Authority().issue(ends=30 * A_DAY), Outcome.BAD, "names no host"),
    "about to end": (
        Authority().issue(dns("web"), starts=-60 * A_DAY, ends=2 * A_DAY),
        Outcome.WARNING,
        "for web, expires at",
    ),
    "made for a day": (Authority().issue(dns("web")), Outcome.OK, "for web, until"),
}


@pytest.mark.parametrize("which", CERTIFICATES)
async def test_a_certificate_is_judged_by_its_names_and_times(
    tls: dict[str, str], tmp_path: Path, which: str
) -> None:
    issued, outcome, said = CERTIFICATES[which]
    issued.write(tmp_path, "tls")

    found = await check(tls, "certificate")

    assert found.outcome is outcome
    assert found.found.startswith(said)


@pytest.mark.parametrize(("ends", "outcome"), [(-HOUR, Outcome.BAD), (HOUR, Outcome.WARNING)])
async def test_an_authority_that_ends_is_told(
    tls: dict[str, str], ends: timedelta, outcome: Outcome
) -> None:
    Path(tls["BROKER_TLS_CLIENT_CA_FILE"]).write_bytes(Authority(ends=ends).cert)

    found = await check(tls, "certificate")

    assert found.outcome is outcome
    assert "an authority of BROKER_TLS_CLIENT_CA_FILE ends at" in found.found


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("BROKER_TLS_KEY_FILE", "certificate"),
        ("BROKER_POLICY_FILE", "policy"),
        ("BROKER_JWT_JWKS", "issuer's keys"),
    ],
)
async def test_a_file_of_no_use_is_named(
    tls: dict[str, str], jwt: dict[str, str], variable: str, name: str
) -> None:
    environ = {**tls, **jwt}
    path = Path(environ[variable])
    path.write_text("nothing of use")

    found = await check(environ, name)

    assert found.outcome is Outcome.BAD
    assert found.found.startswith(f"{path}: ")


async def test_an_issuer_that_is_away_is_told(jwt: dict[str, str]) -> None:
    found = await check({**jwt, "BROKER_JWT_JWKS": "http://127.0.0.1:1/keys"}, "issuer's keys")

    assert found.outcome is Outcome.BAD
    assert found.found == "http://127.0.0.1:1/keys: cannot be fetched (ConnectError)"


async def test_rules_for_whom_nobody_can_prove_to_be_are_told(tls: dict[str, str]) -> None:
    found = await check(tls, "policy")

    assert found.outcome is Outcome.WARNING
    assert found.found.startswith("sa:system:serviceaccount:web:onboarding has rules, and nobody")


def test_what_a_caller_may_do_is_explained(policy: Path) -> None:
    ended = run_here(
        "doctor", "--caller", "dns:Web", "--json", environ={"BROKER_POLICY_FILE": str(policy)}
    )

    assert ended.document == {
        "caller": "dns:web",
        "allowed": [
            {
                "rpc": "TokenService/GetAccessToken",
                "tenants": ["acme", "eu/*"],
                "scopes": ["export-items:read"],
                "usable": True,
            },
            {
                "rpc": "GrantService/GetGrant",
                "tenants": ["eu/*"],
                "scopes": [],
                "usable": True,
            },
            {
                "rpc": "OperationsService/GetFleetStatus",
                "tenants": ["eu/*"],
                "scopes": [],
                "usable": False,
            },
        ],
    }
    assert ended.status == 0


def test_people_get_a_table_of_it(policy: Path) -> None:
    environ = {"BROKER_POLICY_FILE": str(policy)}

    ended = run_here("doctor", "--caller", "dns:web", environ=environ)

    assert "the grant holds export-items:read" in ended.stdout
    assert "never: it is about the whole fleet" in ended.stdout
    assert "Everything else is refused." in ended.stdout


@pytest.mark.parametrize(
    ("identity", "status", "said"),
    [
        ("dns:wbe", 1, "no rule names dns:wbe"),
        ("dns:wbe", 1, "the nearest one that has rules: dns:web"),
        ("uri:spiffe://nobody", 1, "add a rule to the policy"),
        ("web", 2, "an identity is uri:…, dns:…, sa:…"),
    ],
)
def test_a_caller_without_rules_is_told_so(
    policy: Path, identity: str, status: int, said: str
) -> None:
    environ = {"BROKER_POLICY_FILE": str(policy)}

    ended = run_here("doctor", "--caller", identity, environ=environ)

    assert ended.status == status
    assert said in ended.stderr


def test_without_a_policy_nothing_can_be_explained() -> None:
    ended = run_here("doctor", "--caller", "dns:web")

    assert ended.status == 1
    assert "BROKER_POLICY_FILE: expected the path of the policy" in ended.stderr


def test_a_broken_policy_is_told_with_its_lines(policy: Path) -> None:
    policy.write_text(POLICY.replace("rpcs", "rpc"))

    ended = run_here("doctor", "--caller", "dns:web", environ={"BROKER_POLICY_FILE": str(policy)})

    assert ended.status == 1
    assert f"{policy}: line 4: unknown key" in ended.stderr
