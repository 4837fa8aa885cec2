"""A server that knows its callers, put together from settings as `serve` does it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import grpc.aio

from broker.config import Settings
from broker.domain.errors import CallerUnauthenticated
from broker.guarding import Guarding, guarding
from broker.rpc.caller import Context
from broker.rpc.gate import Gate, PolicyGate
from support.certificates import Authority, Issued, dns
from support.rpc import Served, Told, serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What runs, and what it stands on."""

    served: Served
    authority: Authority
    guarding: Guarding
    folder: Path
    told: Told

    @property
    def policy(self) -> Path:
        """The policy's file."""
        return self.folder / "policy.yaml"

    async def look(self) -> None:
        """Has the files looked at, as often as a change needs to be seen."""
        for _ in range(2):
            await self.guarding.refresh()

    def channel(self, caller: Issued | None) -> grpc.aio.Channel:
        """Opens a connection of its own."""
        key, cert = (caller.key, caller.cert) if caller else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.cert, key, cert)
        # Channels to one address share a connection unless they are told not to.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"localhost:{self.served.port}", credentials, options)


def _compared(gate: Gate) -> Gate:
    """Has every call of a test say that the short way takes nobody for somebody else."""
    if not isinstance(gate, PolicyGate):
        return gate

    async def identify(context: Context) -> str:
        try:
            before = gate.known(context)
        except CallerUnauthenticated:
            before = None
        identity = await gate.identify(context)
        assert before in {None, identity}
        # None: the issuer's keys were fetched anew in between, and what they proved went with them.
        assert gate.known(context) in {identity, None}
        return identity

    return replace(gate, identify=identify)


@asynccontextmanager
async def guarded(
    folder: Path, policy: str, *, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Guarded]:
    """Serves with mutual TLS under a policy, unless `settings` say otherwise."""
    authority, told = Authority(), Told()
    cert, key = authority.issue(dns("localhost")).write(folder, "tls")
    (folder / "ca.crt").write_bytes(authority.cert)
    (folder / "policy.yaml").write_text(policy)
    environ = {
        "BROKER_TLS_CERT_FILE": str(cert),
        "BROKER_TLS_KEY_FILE": str(key),
        "BROKER_TLS_CLIENT_CA_FILE": str(folder / "ca.crt"),
        "BROKER_POLICY_FILE": str(folder / "policy.yaml"),
        **(settings or {}),
    }
    made = guarding(Settings.from_environ(environ), observer=told)
    async with serving(credentials=made.credentials, gate=_compared(made.gate)) as served:
        yield Guarded(served=served, authority=authority, guarding=made, folder=folder, told=told)
