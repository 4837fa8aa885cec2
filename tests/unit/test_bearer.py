"""Service-account tokens: which are an identity, and why the others are none."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.domain.errors import CallerUnauthenticated
from broker.rpc.bearer import ServiceAccounts
from broker.rpc.jwks import FileIssuer, Keys, read_keys
from broker.rpc.reloading import FilesUnusableError
from support.rpc import Told
from support.tokens import AUDIENCE, ISSUER, SUBJECT, Signer, key_set, some_claims


class KnownIssuer:
    """An issuer whose keys are at hand."""

    def __init__(self, *keys: dict[str, object]) -> None:
        self.known: Keys = read_keys(key_set(*keys))
        self.asked: list[str] = []

    def keys(self) -> Keys:
        return self.known

    async def find(self, kid: str) -> jwt.PyJWK | None:
        self.asked.append(kid)
        return self.known.get(kid)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(algorithm="RS256")


@pytest.fixture
def issuer(signer: Signer) -> KnownIssuer:
    return KnownIssuer(signer.jwk())


@pytest.fixture
def accounts(issuer: KnownIssuer) -> ServiceAccounts:
    return ServiceAccounts(issuer, issuer_name=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_a_token_that_the_issuer_signed_is_an_identity(algorithm: str) -> None:
    signer = Signer(algorithm=algorithm)
    accounts = ServiceAccounts(KnownIssuer(signer.jwk()), issuer_name=ISSUER, audience=AUDIENCE)

    assert await accounts.identity(signer.sign()) == f"sa:{SUBJECT}"


async def test_one_audience_of_several_may_be_ours(
    accounts: ServiceAccounts, signer: Signer
) -> None:
    token = signer.sign(aud=["vault", AUDIENCE])

    assert await accounts.identity(token) == f"sa:{SUBJECT}"


LONG_AGO = int(time.time()) - 3600

WRONG_CLAIMS: dict[str, tuple[dict[str, object], str]] = {
    "expired": ({"exp": LONG_AGO}, "it has expired"),
    "not valid yet": ({"nbf": LONG_AGO + 7200}, "it is not valid yet"),
    "a foreign audience": ({"aud": ["vault"]}, "it is for another audience"),
    "no audience": ({"aud": None}, "expected the claims exp, iss, aud, sub"),
    "a foreign issuer": ({"iss": "https://other.example"}, "another issuer made it"),
    "no end": ({"exp": None}, "expected the claims"),
    "no subject": ({"sub": None}, "expected the claims"),
    "a subject that is no text": ({"sub": 7}, "it is malformed"),
    "a subject with a line break": ({"sub": "a\nb"}, "expected a subject of at most 500 visible"),
    "an end that is no time": ({"exp": "soon"}, "it is malformed"),
}


@pytest.mark.parametrize("which", WRONG_CLAIMS)
async def test_a_token_with_wrong_claims_is_refused_with_the_reason(
    accounts: ServiceAccounts, signer: Signer, which: str
) -> None:
    changes, why = WRONG_CLAIMS[which]

    with pytest.raises(CallerUnauthenticated, match=why) as refused:
        await accounts.identity(signer.sign(None, **changes))

    assert "vault" not in refused.value.message
    assert "other.example" not in refused.value.message


def part(document: object) -> str:
    return in_base64(json.dumps(document).encode())


def in_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def unsigned(signer: Signer, algorithm: object = "none") -> str:
    header = {"alg": algorithm, "kid": signer.kid}
    return f"{part(header)}.{part(some_claims())}."


def signed_with_public_key(signer: Signer) -> str:
    """As an attacker does who hopes that the key's kind is taken from the token."""
    public_key = signer.key.public_key()
    known = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    said = f"{part({'alg': 'HS256', 'kid': signer.kid})}.{part(some_claims())}"
    return f"{said}.{in_base64(hmac.digest(known, said.encode(), 'sha256'))}"


FORGED: dict[str, tuple[Callable[[Signer], str], str]] = {
    "none": (unsigned, "expected a signature with a public key"),
    "None": (lambda signer: unsigned(signer, "None"), "expected a signature with a public key"),
    "HMAC": (signed_with_public_key, "expected a signature with a public key"),
    "several": (
        lambda signer: unsigned(signer, ["RS256"]),
        "expected a signature with a public key",
    ),
    "no signature": (lambda signer: unsigned(signer, "RS256"), "its signature is not the issuer's"),
    "another key of that name": (
        lambda signer: Signer(signer.kid, algorithm="RS256").sign(),
        "its signature is not the issuer's",
    ),
    "another algorithm of that key": (
        lambda signer: jwt.encode(
            some_claims(), signer.key, algorithm="PS256", headers={"kid": signer.kid}
        ),
        "its algorithm is not that of its key",
    ),
    "an unknown key": (lambda _: Signer("key-2").sign(), "is none of the issuer's"),
    "no key's name": (
        lambda signer: jwt.encode(some_claims(), signer.key, algorithm="RS256"),
        "is none of the issuer's",
    ),
    "no token": (lambda _: "not.a.token", "it is no JSON Web Token"),
    "nothing": (lambda _: "", "it is no JSON Web Token"),
    "too much": (lambda _: "x" * 20_000, "expected at most"),
    "a list for a header": (lambda _: f"{part([])}.{part({})}.", "it is no JSON Web Token"),
    "other letters": (lambda _: "ü.ü.\ud800", "it is no JSON Web Token"),
}


@pytest.mark.parametrize("which", FORGED)
async def test_a_token_that_the_issuer_did_not_sign_is_refused(
    accounts: ServiceAccounts, signer: Signer, which: str
) -> None:
    make, why = FORGED[which]

    with pytest.raises(CallerUnauthenticated, match=why):
        await accounts.identity(make(signer))


async def test_an_altered_token_is_not_taken_for_the_one_that_was_checked(
    accounts: ServiceAccounts, signer: Signer
) -> None:
    token = signer.sign()
    await accounts.identity(token)
    header, _, signature = token.split(".")

    with pytest.raises(CallerUnauthenticated, match="its signature"):
        await accounts.identity(f"{header}.{part(some_claims(sub='root'))}.{signature}")


async def test_a_token_is_checked_once_until_it_expires(
    issuer: KnownIssuer, signer: Signer
) -> None:
    now = time.time()
    clock = iter([now, now, now + 3600 + 11])
    accounts = ServiceAccounts(
        issuer, issuer_name=ISSUER, audience=AUDIENCE, clock=lambda: next(clock)
    )
    token = signer.sign()

    for _ in range(3):
        await accounts.identity(token)

    assert issuer.asked == ["key-1", "key-1"]


async def test_a_key_that_is_gone_takes_its_tokens_with_it(
    issuer: KnownIssuer, accounts: ServiceAccounts, signer: Signer
) -> None:
    token = signer.sign()
    await accounts.identity(token)

    issuer.known = read_keys(key_set(Signer("key-2").jwk()))

    with pytest.raises(CallerUnauthenticated, match="none of the issuer's"):
        await accounts.identity(token)


async def test_what_is_remembered_is_bounded(accounts: ServiceAccounts, signer: Signer) -> None:
    token = signer.sign()
    accounts._known.update((bytes([n % 256, n // 256]), ("x", 0.0)) for n in range(10_000))  # noqa: SLF001 - a bound that nothing else shows

    await accounts.identity(token)

    assert len(accounts._known) == 1  # noqa: SLF001 - as above


def test_only_public_keys_that_sign_are_taken(signer: Signer) -> None:
    keys = read_keys(
        key_set(
            signer.jwk(),
            signer.jwk(kid="no algorithm", alg=""),
            signer.jwk(kid="for encryption", use="enc"),
            Signer().private_jwk("private"),
            signer.jwk(kid="", alg="RS256"),
            signer.jwk(kid=7),
            signer.jwk(kid="of another kind", alg="HS256"),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric", "alg": "HS256"},
            {"kty": "RSA", "kid": "without numbers"},
            {"kty": "EC", "crv": "P-256", "x": 7, "y": [], "kid": "with other numbers"},
            {},
        )
    )

    assert {kid: key.algorithm_name for kid, key in keys.items()} == {
        "key-1": "RS256",
        "no algorithm": "RS256",
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 7}',
        b'{"keys": [7]}',
        b"[" * 100_000,
        key_set({"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"}),
    ],
)
def test_what_holds_no_key_is_refused_and_not_repeated(content: bytes) -> None:
    with pytest.raises(FilesUnusableError, match=r"^expected a JSON Web Key Set with"):
        read_keys(content)


async def test_keys_may_come_from_a_file(tmp_path: Path, signer: Signer) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(signer.jwk()))
    issuer = FileIssuer(path, observer=Told())
    accounts = ServiceAccounts(issuer, issuer_name=ISSUER, audience=AUDIENCE)
    assert await accounts.identity(signer.sign()) == f"sa:{SUBJECT}"

    newer = Signer("key-2")
    path.write_bytes(key_set(newer.jwk()))
    for _ in range(2):
        await issuer.file.refresh()

    assert await accounts.identity(newer.sign()) == f"sa:{SUBJECT}"
    with pytest.raises(CallerUnauthenticated, match="none of the issuer's"):
        await accounts.identity(signer.sign())


def test_a_file_without_keys_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b"{}")

    with pytest.raises(FilesUnusableError, match=f"^{path}: expected a JSON Web Key Set"):
        FileIssuer(path, observer=Told())
