"""The demo: a tenant taken through the real consent flow, and a call to Pleo's API with its token.

Speaks to the broker over gRPC as a web tier and a backend would, and to the sandbox over HTTP as a
browser would. Nothing in it knows the broker from within.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

import grpc.aio
import httpx

from broker.sandbox.sandbox import Sandbox
from broker.sandbox.visitor import walk_consent
from broker.v1 import grant_service_pb2, grant_service_pb2_grpc, token_service_pb2
from broker.v1.token_service_pb2_grpc import TokenServiceStub

TENANT: Final = "demo"

_BINDING_BYTES: Final = 32
"""What a web tier would derive from the browser's cookie."""

_DEADLINE_SECONDS: Final = 30.0


class DemoFailedError(RuntimeError):
    """Something did not go as it should; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One run of the demo."""

    target: str
    """The broker's gRPC address."""

    sandbox: Sandbox
    on_step: Callable[[str], None]

    async def run(self) -> None:
        """Connects the tenant, gets a token, and uses it.

        Raises:
            DemoFailedError: it did not work. grpc.aio.AioRpcError, httpx.HTTPError.
        """
        async with grpc.aio.insecure_channel(self.target) as channel:
            await channel.channel_ready()
            await self._connect(grant_service_pb2_grpc.GrantServiceStub(channel))
            answer = await TokenServiceStub(channel).GetAccessToken(
                token_service_pb2.GetAccessTokenRequest(tenant=TENANT), timeout=_DEADLINE_SECONDS
            )
        seconds = answer.expires_in.ToTimedelta().total_seconds()
        self.on_step(
            f"GetAccessToken({TENANT}): an access token of generation {answer.generation}, "
            f"good for {seconds:.0f} s"
        )
        await self._use(answer.access_token)

    async def _connect(self, grants: grant_service_pb2_grpc.GrantServiceAsyncStub) -> None:
        binding = secrets.token_bytes(_BINDING_BYTES)
        started = await grants.StartAuthorization(
            grant_service_pb2.StartAuthorizationRequest(tenant=TENANT, session_binding=binding),
            timeout=_DEADLINE_SECONDS,
        )
        self.on_step("StartAuthorization: the customer is sent to Pleo with PKCE and a state")
        async with httpx.AsyncClient() as browser:
            location = await walk_consent(browser, started.authorization_uri)
        self.on_step("the customer consents, and comes back with a code")
        returned = parse_qs(urlsplit(location).query)
        if "code" not in returned or "state" not in returned:
            raise DemoFailedError("the sandbox sent the customer back without a code")
        completed = await grants.CompleteAuthorization(
            grant_service_pb2.CompleteAuthorizationRequest(
                tenant=TENANT,
                state=returned["state"][0],
                session_binding=binding,
                code=returned["code"][0],
            ),
            timeout=_DEADLINE_SECONDS,
        )
        self.on_step(f"CompleteAuthorization: {completed.grant.subject} is connected")

    async def _use(self, access_token: str) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.get(
                f"{self.sandbox.url}/v1/export-items",
                headers={"Authorization": f"Bearer {access_token}"},
            )
        if answer.status_code != httpx.codes.OK:
            raise DemoFailedError(f"the sandbox's API answered {answer.status_code}")
        self.on_step("GET /v1/export-items with it: 200, the sandbox accepts the token")


def what_next(*, target: str, ops_url: str, sandbox: Sandbox) -> str:
    """Returns what to try, for people."""
    asked = f'{{"tenant": "{TENANT}"}}'
    return f"""
What to try next, in another terminal:

  the same call with grpcurl   grpcurl -plaintext -d '{asked}' {target} \\
                                 broker.v1.TokenService/GetAccessToken
  or with the command line     BROKER_ADDRESS={target} .venv/bin/token-broker get {TENANT}
  connect another tenant       BROKER_ADDRESS={target} .venv/bin/token-broker connect acme
  as a customer's browser      .venv/bin/python -m deploy.examples.connect --broker {target}
  how the broker is            {ops_url}/statusz, or curl '{ops_url}/readyz?verbose'
  what it counts               curl {ops_url}/metrics
  the Pleo sandbox             {sandbox.url}/

Ctrl-C ends everything and leaves nothing behind."""
