"""Where a client's story takes place: before the test kit's fake broker, and before real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from broker.testing import FakeTokenBroker
from broker.v1.operations_service_pb2 import RefreshGrantRequest
from broker.v1.operations_service_pb2_grpc import OperationsServiceStub
from support.fleet import PATIENCE_SECONDS, Fleet
from support.onboarding import Customer, connect, revoke
from support.rpc import failure_of

_REASON: Final = "the test says so"


class World(Protocol):
    """A broker, and what happens to its one tenant."""

    @property
    def address(self) -> str:
        """For a client."""
        ...

    @property
    def tenant(self) -> str:
        """Who is not connected yet."""
        ...

    async def connect(self) -> None:
        """The customer consents, perhaps again."""
        ...

    async def rotate(self) -> None:
        """The access token is replaced before its time."""
        ...

    async def leave(self) -> None:
        """The customer disconnects in Pleo, and the broker has found out."""
        ...

    async def revoke(self) -> None:
        """The product ends the grant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeWorld:
    """Of the test kit."""

    broker: FakeTokenBroker
    tenant: str = "acme"

    @property
    def address(self) -> str:
        """See `World`."""
        return self.broker.address

    async def connect(self) -> None:
        """See `World`."""
        self.broker.connect(self.tenant)

    async def rotate(self) -> None:
        """See `World`."""
        self.broker.rotate(self.tenant)

    async def leave(self) -> None:
        """See `World`."""
        self.broker.require_reauth(self.tenant)

    async def revoke(self) -> None:
        """See `World`."""
        self.broker.revoke(self.tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealWorld:
    """Of brokers as they run in production, with Pleo's sandbox."""

    brokers: Fleet
    customer: Customer

    @property
    def address(self) -> str:
        """See `World`. Another one than the one that acts."""
        return self.brokers.replicas[1].target

    @property
    def tenant(self) -> str:
        """See `World`."""
        return self.customer.tenant

    async def connect(self) -> None:
        """See `World`."""
        await connect(self.brokers, self.brokers.replicas[0], self.customer)

    async def rotate(self) -> None:
        """See `World`."""
        operations = OperationsServiceStub(self.brokers.replicas[0].first_channel)
        request = RefreshGrantRequest(tenant=self.tenant, reason=_REASON)
        await operations.RefreshGrant(request, timeout=PATIENCE_SECONDS)

    async def leave(self) -> None:
        """See `World`."""
        self.brokers.sandbox.server.disconnect(company=self.customer.company)
        assert (await failure_of(self.rotate())).error_info.reason == "REAUTH_REQUIRED"

    async def revoke(self) -> None:
        """See `World`."""
        await revoke(self.brokers.replicas[0], self.tenant)
