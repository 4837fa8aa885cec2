"""What settings must hold together. Each rule looks at all settings and gives what is wrong.

A rule sees defaults in place of values that could not be read, so that every problem is found at
once; what it then says of a variable that is wrong already is left out (`settings.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from broker.config.addresses import DatabaseUrl
from broker.config.choices import PleoEnvironment
from broker.config.fields import Fields
from broker.config.problems import Problem

Rule: TypeAlias = Callable[[Fields], Iterator[Problem]]


def database_is_reached_safely(settings: Fields) -> Iterator[Problem]:
    """Off loopback, PostgreSQL proves who it is."""
    if settings.database_url is None or settings.insecure:
        return
    url = DatabaseUrl.read(settings.database_url.read().reveal())
    if not url.is_local and url.sslmode != "verify-full":
        yield Problem(
            variable=settings.database_url.variable,
            expected="`sslmode=verify-full`, since PostgreSQL is not on loopback"
            " (or BROKER_INSECURE=true, where a mesh encrypts)",
        )


def database_can_be_written(settings: Fields) -> Iterator[Problem]:
    """A standby is of no use; with several hosts the one that writes is looked for anyway."""
    if settings.database_url is None:
        return
    url = DatabaseUrl.read(settings.database_url.read().reveal())
    if url.target_session_attrs not in {"", "read-write", "primary"}:
        yield Problem(
            variable=settings.database_url.variable,
            expected="`target_session_attrs` read-write, primary, or none",
        )


def redis_authority_is_used(settings: Fields) -> Iterator[Problem]:
    """An authority where nothing is encrypted: somebody believes in what there is not."""
    if settings.redis_url is not None and settings.redis_ca_file is not None:
        scheme = settings.redis_url.read().reveal().partition("://")[0]
        if scheme not in {"rediss", "redis+sentinels", "redis+clusters"}:
            yield Problem(
                variable="BROKER_REDIS_CA_FILE",
                expected="to be set only where BROKER_REDIS_URL is encrypted, as rediss:// is",
            )


def listeners_are_encrypted_or_local(settings: Fields) -> Iterator[Problem]:
    """Without TLS only loopback is listened on."""
    if settings.tls_cert_file is not None or settings.insecure:
        return
    for variable, address in (
        ("BROKER_GRPC_ADDRESS", settings.grpc_address),
        ("BROKER_OPS_ADDRESS", settings.ops_address),
    ):
        if not address.is_loopback:
            yield Problem(
                variable=variable,
                expected="a loopback address, since there is no TLS"
                " (set BROKER_TLS_*, or BROKER_INSECURE=true, where a mesh encrypts)",
            )


def certificate_and_key_come_together(settings: Fields) -> Iterator[Problem]:
    """A certificate has its key; callers prove themselves by certificate or by token."""
    cert, key = settings.tls_cert_file, settings.tls_key_file
    if cert is None and (key or settings.tls_client_ca_file):
        yield _needed("BROKER_TLS_CERT_FILE", "TLS needs a certificate")
    if key is None and (cert or settings.tls_client_ca_file):
        yield _needed("BROKER_TLS_KEY_FILE", "TLS needs the certificate's key")
    if cert and not settings.has_identities:
        yield _needed("BROKER_TLS_CLIENT_CA_FILE", "callers without BROKER_JWT_* need certificates")


def token_settings_come_together(settings: Fields) -> Iterator[Problem]:
    """A token is checked for issuer, audience and signature, or not at all."""
    parts = {
        "BROKER_JWT_ISSUER": settings.jwt_issuer,
        "BROKER_JWT_AUDIENCE": settings.jwt_audience,
        "BROKER_JWT_JWKS": settings.jwt_jwks,
    }
    if any(parts.values()):
        for variable, value in parts.items():
            if not value:
                yield _needed(variable, "the three BROKER_JWT_* belong together")


def identities_have_a_policy(settings: Fields) -> Iterator[Problem]:
    """Nothing is allowed that no rule allows, so identities without rules are a mistake."""
    if settings.has_identities and settings.policy_file is None:
        yield _needed("BROKER_POLICY_FILE", "callers have identities")


def strangers_are_local(settings: Fields) -> Iterator[Problem]:
    """Nobody without identity is let in from elsewhere, whatever a mesh does."""
    if settings.anonymous and not settings.grpc_address.is_loopback:
        yield Problem(
            variable="BROKER_ANONYMOUS",
            expected="`false`, since BROKER_GRPC_ADDRESS is not loopback",
        )


def addresses_belong_to_the_environment(settings: Fields) -> Iterator[Problem]:
    """A custom Pleo has addresses of its own; the others have theirs."""
    is_custom = settings.pleo_environment is PleoEnvironment.CUSTOM
    addresses = {
        "BROKER_PLEO_AUTHORIZE_URL": settings.pleo_authorize_url,
        "BROKER_PLEO_TOKEN_URL": settings.pleo_token_url,
        # Empty is allowed everywhere: it turns a look-up off.
        "BROKER_PLEO_API_URL": settings.pleo_api_url,
    }
    for variable, address in addresses.items():
        if is_custom and address is None:
            yield _needed(variable, "BROKER_PLEO_ENVIRONMENT is `custom`")
        elif not is_custom and address:
            yield Problem(
                variable=variable,
                expected="to be set only with BROKER_PLEO_ENVIRONMENT=custom",
            )


RULES: Final[tuple[Rule, ...]] = (
    database_is_reached_safely,
    database_can_be_written,
    redis_authority_is_used,
    listeners_are_encrypted_or_local,
    certificate_and_key_come_together,
    token_settings_come_together,
    identities_have_a_policy,
    strangers_are_local,
    addresses_belong_to_the_environment,
)
"""What holds for every command."""


def _needed(variable: str, because: str) -> Problem:
    return Problem(variable=variable, expected=f"a value, since {because}")
