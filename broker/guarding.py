"""Who gets in: the settings about callers, made into a gate, and what is read again on the way.

Part of the composition (`app.py`). Which settings belong together, the settings decide
(`config/rules.py`); here they are only put to work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import grpc

from broker.config import Settings
from broker.domain.errors import CallerUnauthenticated
from broker.domain.policy import Policy
from broker.ports import Observer
from broker.rpc.caller import ANONYMOUS, Context
from broker.rpc.gate import Gate, Identify, OpenGate, PolicyGate
from broker.rpc.identity import certificate_identity
from broker.rpc.policy_file import load_policy
from broker.rpc.reloading import Refreshed
from broker.rpc.tls import TlsFiles, load_certificate, server_credentials

_NO_RULES: Final = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarding:
    """How callers are let in."""

    gate: Gate
    credentials: grpc.ServerCredentials | None
    """None: clear text."""

    files: tuple[Refreshed, ...] = ()

    async def refresh(self) -> None:
        """Looks whether any of the files has changed; for a loop."""
        for each in self.files:
            await each.refresh()


def guarding(settings: Settings, *, observer: Observer) -> Guarding:
    """Reads what the settings name.

    Raises:
        FilesUnusableError: certificate, key, client CA or policy are of no use.
    """
    files: list[Refreshed] = []
    credentials = _credentials(settings, observer, files)
    if settings.allows_anonymous and settings.policy_file is None and not settings.has_identities:
        return Guarding(gate=OpenGate(), credentials=credentials, files=tuple(files))
    policy = _policy(settings, observer, files)
    gate = PolicyGate(identify=_identify(settings), policy=policy)
    return Guarding(gate=gate, credentials=credentials, files=tuple(files))


def tls_files(settings: Settings) -> TlsFiles | None:
    """Returns where the server's certificate is; None: there is no TLS."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(
        cert=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_ca=settings.tls_client_ca_file,
    )


def _credentials(
    settings: Settings, observer: Observer, files: list[Refreshed]
) -> grpc.ServerCredentials | None:
    where = tls_files(settings)
    if where is None:
        return None
    certificate = load_certificate(where, observer=observer)
    files.append(certificate)
    return server_credentials(lambda: certificate.current, asks_callers=where.client_ca is not None)


def _policy(settings: Settings, observer: Observer, files: list[Refreshed]) -> Callable[[], Policy]:
    if settings.policy_file is None:
        return lambda: _NO_RULES
    policy = load_policy(settings.policy_file, observer=observer)
    files.append(policy)
    return lambda: policy.current


def _identify(settings: Settings) -> Identify:
    has_certificates = settings.tls_client_ca_file is not None
    expected = f"expected {' or '.join(_ways(settings)) or 'an identity, and none is set up'}"

    async def identify(context: Context) -> str:
        identity = certificate_identity(context) if has_certificates else None
        if identity is not None:
            return identity
        if settings.allows_anonymous:
            return ANONYMOUS
        raise CallerUnauthenticated(f"the caller has no identity: {expected}")

    return identify


def _ways(settings: Settings) -> Iterable[str]:
    if settings.tls_client_ca_file is not None:
        yield "a client certificate"
