"""Access tokens of Pleo for a service that calls it, from the token broker.

    async with TokenClient("dns:///token-broker:50051", credentials=Credentials(ca_file="ca.pem"),
                           watch=True) as client:
        auth = PleoAuth(client, "acme", api_url="https://external.pleo.io")
        async with httpx.AsyncClient(auth=auth) as http:
            response = await http.get("https://external.pleo.io/v1/export-items")

**What it promises.** A token is used from memory for its `reuse_for`, on the monotonic clock, and
for 4.5 of the five seconds from then to its planned rotation, in which the broker could only give
it again. Not longer, though it may live on: who asks then waits for the rotation, half a second and
what it takes. So a broker that is away for less than that is not noticed, and one that is away for
longer is `BrokerUnreachable`. A degraded token has no lease: it is given to who asked, and asked
for again next time. Whoever asks for a tenant at the same time shares one call, so that a planned
rotation costs one, however many ask. With `watch=True` a stream tells of rotations, which then cost
none, of REAUTH_REQUIRED and of revocations, and an ended token is dropped at once.

**Where it may be used.** A `TokenClient` belongs to the event loop that it is entered on, a
`BlockingTokenClient` to a process, where any thread may use it. Neither survives a fork: the child
has an empty cache, and is told with RuntimeError to make one of its own. Make it after forking;
gRPC itself wants that too.

A web tier calls GrantService with the generated stubs; `SERVICE_CONFIG` is for its channel, which
then repeats what is safe to repeat.

**What it needs.** grpcio, grpcio-status, protobuf, googleapis-common-protos and httpx: nothing of
the server.
"""

from broker.client.blocking import BlockingTokenClient
from broker.client.channel import SERVICE_CONFIG
from broker.client.client import TokenClient
from broker.client.credentials import Credentials
from broker.client.errors import (
    AuthorizationStateInvalid,
    BrokerUnreachable,
    CallerNotAllowed,
    CallerRateLimited,
    CallerUnauthenticated,
    CodeRejected,
    ConsentDenied,
    ExchangeOutcomeUnknown,
    GrantHeld,
    InternalError,
    InvalidRequest,
    KeyUnavailable,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReauthRequired,
    RecordUnreadable,
    RefreshInProgress,
    RefreshOutcomeUnknown,
    RefreshTokenRejected,
    ScopeMissing,
    StoreUnavailable,
    SubjectAlreadyConnected,
    SubjectMismatch,
    TenantNotFound,
    TokenBrokerError,
)
from broker.client.httpx_auth import PleoAuth
from broker.client.values import AccessToken

__all__ = [
    "SERVICE_CONFIG",
    "AccessToken",
    "AuthorizationStateInvalid",
    "BlockingTokenClient",
    "BrokerUnreachable",
    "CallerNotAllowed",
    "CallerRateLimited",
    "CallerUnauthenticated",
    "CodeRejected",
    "ConsentDenied",
    "Credentials",
    "ExchangeOutcomeUnknown",
    "GrantHeld",
    "InternalError",
    "InvalidRequest",
    "KeyUnavailable",
    "PleoAuth",
    "ProviderRejectedClient",
    "ProviderUnavailable",
    "ReauthRequired",
    "RecordUnreadable",
    "RefreshInProgress",
    "RefreshOutcomeUnknown",
    "RefreshTokenRejected",
    "ScopeMissing",
    "StoreUnavailable",
    "SubjectAlreadyConnected",
    "SubjectMismatch",
    "TenantNotFound",
    "TokenBrokerError",
    "TokenClient",
]
