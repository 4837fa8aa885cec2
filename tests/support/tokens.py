"""Service-account tokens as Kubernetes projects them, really signed, and the keys to check them."""

from __future__ import annotations

import json
import time
from typing import Any, Final, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
AUDIENCE: Final = "token-broker"
SUBJECT: Final = "system:serviceaccount:web:onboarding"

Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Signer:
    """An issuer's key."""

    def __init__(self, kid: str = "key-1", *, algorithm: str = "ES256") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.key: Key = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if algorithm.startswith(("RS", "PS"))
            else ec.generate_private_key(ec.SECP256R1())
        )

    def jwk(self, **changes: object) -> dict[str, object]:
        """Returns the public key as an issuer publishes it."""
        public_key = self.key.public_key()
        described = (
            RSAAlgorithm.to_jwk(public_key, as_dict=True)
            if isinstance(public_key, rsa.RSAPublicKey)
            else ECAlgorithm.to_jwk(public_key, as_dict=True)
        )
        described.pop("key_ops", None)
        return {**described, "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}

    def private_jwk(self, kid: str) -> dict[str, object]:
        """Returns the private key as nobody should publish it."""
        assert isinstance(self.key, ec.EllipticCurvePrivateKey)
        return {**ECAlgorithm.to_jwk(self.key, as_dict=True), "kid": kid, "alg": self.algorithm}

    def sign(self, headers: dict[str, object] | None = None, **changes: object) -> str:
        """Returns a token as a pod would show it; a claim that is None is left out."""
        claims = {
            name: value for name, value in some_claims(**changes).items() if value is not None
        }
        return jwt.encode(
            claims, self.key, algorithm=self.algorithm, headers={"kid": self.kid, **(headers or {})}
        )


def some_claims(**changes: object) -> dict[str, Any]:
    """Returns what is in a token of Kubernetes."""
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": SUBJECT,
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "onboarding"}},
        **changes,
    }


def key_set(*keys: dict[str, object]) -> bytes:
    """Returns a JSON Web Key Set."""
    return json.dumps({"keys": keys}).encode()
