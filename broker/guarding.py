"""Who gets in: the settings about callers, made into a gate, and what is read again on the way.

Part of the composition (`app.py`). Which settings belong together, the settings decide
(`config/rules.py`); here they are only put to work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from broker.config import Settings
from broker.domain.errors import CallerRateLimited, CallerUnauthenticated
from broker.domain.policy import Policy
from broker.ops.checks import CertificateLife
from broker.ports import Observer
from broker.rpc.bearer import ServiceAccounts, bearer_token
from broker.rpc.caller import ANONYMOUS, Context
from broker.rpc.gate import Gate, Identify, OpenGate, PolicyGate
from broker.rpc.identity import certificate_identity
from broker.rpc.jwks import FileIssuer, Issuer
from broker.rpc.jwks_url import UrlIssuer
from broker.rpc.policy_file import load_policy
from broker.rpc.rate import RateLimit
from broker.rpc.reloading import RELOAD_SECONDS, Refreshed, Reloaded
from broker.rpc.tls import ServerCertificate, TlsFiles, load_certificate, server_credentials
from broker.service.loops import repeat

_NO_RULES: Final = Policy()

_BURST_SECONDS: Final = 10
"""Of calls at the full rate, which a rested caller may make at once: as many as one who starts with
ten thousand customers asks for."""

Loop: TypeAlias = Callable[[], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What goes on beside the calls, gathered while the rest is made."""

    observer: Observer
    files: list[Refreshed] = field(default_factory=list)
    loops: dict[str, Loop] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """How callers are let in."""

    gate: Gate
    credentials: grpc.ServerCredentials | None
    """None: clear text."""

    beside: Beside
    certificate: Reloaded[ServerCertificate] | None = None
    """The server's; None: there is no TLS."""

    async def refresh(self) -> None:
        """Looks once whether any of the files has changed."""
        for each in self.beside.files:
            await each.refresh()

    def certificate_life(self) -> CertificateLife | None:
        """Returns how long the certificate lives that is shown now; None: there is no TLS."""
        if self.certificate is None:
            return None
        current = self.certificate.current
        return CertificateLife(begins_at=current.not_before, ends_at=current.expires_at)

    def loops(self) -> Mapping[str, Loop]:
        """Returns what must run beside the server, by name."""

        async def files() -> None:
            observer = self.beside.observer
            await repeat("files", self.refresh, pause=RELOAD_SECONDS, observer=observer)

        return {"files": files, **self.beside.loops}


def guarding(settings: Settings, *, observer: Observer) -> Guarding:
    """Reads what the settings name.

    Raises:
        FilesUnusableError: certificate, key, client CA, policy or the issuer's keys are of no use.
    """
    beside = Beside(observer=observer)
    certificate = _certificate(settings, beside)
    return Guarding(
        gate=_gate(settings, beside),
        credentials=None if certificate is None else _credentials(settings, certificate),
        beside=beside,
        certificate=certificate,
    )


def tls_files(settings: Settings) -> TlsFiles | None:
    """Returns where the server's certificate is; None: there is no TLS."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(
        cert=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_ca=settings.tls_client_ca_file,
    )


def _certificate(settings: Settings, beside: Beside) -> Reloaded[ServerCertificate] | None:
    where = tls_files(settings)
    if where is None:
        return None
    certificate = load_certificate(where, observer=beside.observer)
    beside.files.append(certificate)
    return certificate


def _credentials(
    settings: Settings, certificate: Reloaded[ServerCertificate]
) -> grpc.ServerCredentials:
    asks_callers = settings.tls_client_ca_file is not None
    return server_credentials(lambda: certificate.current, asks_callers=asks_callers)


def _gate(settings: Settings, beside: Beside) -> Gate:
    if settings.allows_anonymous and settings.policy_file is None and not settings.has_identities:
        return OpenGate()
    accounts = _service_accounts(settings, beside)
    return PolicyGate(
        identify=_identify(settings, accounts),
        known=_known(settings, accounts),
        policy=_policy(settings, beside),
        check_rate=_check_rate(settings.caller_max_rate),
    )


def _check_rate(rate: int) -> Callable[[str], None]:
    limit = RateLimit(rate=rate, burst=rate * _BURST_SECONDS)

    def check(identity: str) -> None:
        wait = limit.wait(identity, now=time.monotonic())
        if wait:
            raise CallerRateLimited(
                f"more than {rate} calls per second from {identity}",
                retry_after=timedelta(seconds=wait),
                metadata={"caller": identity, "rate": str(rate)},
            )

    return check


def _policy(settings: Settings, beside: Beside) -> Callable[[], Policy]:
    if settings.policy_file is None:
        return lambda: _NO_RULES
    policy = load_policy(settings.policy_file, observer=beside.observer)
    beside.files.append(policy)
    return lambda: policy.current


def _known(settings: Settings, accounts: ServiceAccounts | None) -> Callable[[Context], str | None]:
    named = _named(settings)
    if accounts is None:
        return named

    def known(context: Context) -> str | None:
        token = bearer_token(context)
        return named(context) if token is None else accounts.known(token)

    return known


def _named(settings: Settings) -> Callable[[Context], str | None]:
    """Returns what names a caller who shows no token; None: it has no identity."""
    has_certificates = settings.tls_client_ca_file is not None
    without = ANONYMOUS if settings.allows_anonymous else None
    if has_certificates and without is None:
        return certificate_identity

    def named(context: Context) -> str | None:
        return (certificate_identity(context) if has_certificates else None) or without

    return named


def _identify(settings: Settings, accounts: ServiceAccounts | None) -> Identify:
    named = _named(settings)
    expected = f"expected {' or '.join(_ways(settings)) or 'an identity, and none is set up'}"

    async def identify(context: Context) -> str:
        # Who shows a token means it, also over a connection that somebody else's sidecar made.
        token = None if accounts is None else bearer_token(context)
        if accounts is not None and token is not None:
            return await accounts.identity(token)
        identity = named(context)
        if identity is None:
            raise CallerUnauthenticated(f"the caller has no identity: {expected}")
        return identity

    return identify


def _service_accounts(settings: Settings, beside: Beside) -> ServiceAccounts | None:
    issuer, audience, keys = settings.jwt_issuer, settings.jwt_audience, settings.jwt_jwks
    # The rules of the settings want all three of them, or none.
    if issuer is None or audience is None or keys is None:
        return None
    return ServiceAccounts(_issuer(keys, beside), issuer_name=issuer, audience=audience)


def _issuer(keys: str, beside: Beside) -> Issuer:
    if keys.startswith("/"):
        of_file = FileIssuer(Path(keys), observer=beside.observer)
        beside.files.append(of_file.file)
        return of_file
    of_url = UrlIssuer(keys, observer=beside.observer)
    beside.loops["jwks"] = of_url.run
    return of_url


def _ways(settings: Settings) -> Iterator[str]:
    if settings.tls_client_ca_file is not None:
        yield "a client certificate"
    if settings.jwt_issuer is not None:
        yield "a service-account token (`authorization: Bearer …`)"
