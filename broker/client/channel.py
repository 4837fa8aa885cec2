"""The channel to the brokers: all replicas in turn, those that are well, and who retries what.

gRPC itself retries UNAVAILABLE and obeys the broker's pushback, which is its RetryInfo (gRFC A6);
nothing in this library retries on top of that. CANCELLED is what gRPC makes of a call that comes in
the moment in which a server stops; a call that its caller gave up is never repeated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from broker.client.credentials import Credentials

_SERVICE: Final = "broker.v1.TokenService"
_GRANTS: Final = "broker.v1.GrantService"

SERVICE_CONFIG: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        # A replica that drains says so here, and is asked no more before it goes.
        "healthCheckConfig": {"serviceName": _SERVICE},
        "methodConfig": [
            {
                "name": [
                    {"service": _SERVICE, "method": "GetAccessToken"},
                    {"service": _SERVICE, "method": "BatchGetAccessTokens"},
                    # For a web tier's channel. These bring the same result again, or read, or leave
                    # behind what expires.
                    {"service": _GRANTS, "method": "StartAuthorization"},
                    {"service": _GRANTS, "method": "CompleteAuthorization"},
                    {"service": _GRANTS, "method": "ImportGrant"},
                    {"service": _GRANTS, "method": "GetGrant"},
                    {"service": _GRANTS, "method": "ListGrants"},
                    # Not RevokeGrant: it would also end a consent that came since the first try.
                ],
                "retryPolicy": {
                    # One second and a half in all, where the broker names no time: a replica that
                    # is replaced has a successor by then, and a caller still has time for it.
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        # Half of a hundred calls failed: retries would only add to an outage.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
)
"""What any channel to the brokers is recommended, a web tier's to GrantService too."""

_OPTIONS: Final = (
    ("grpc.service_config", SERVICE_CONFIG),
    # What stands in DNS beside the address is not ours.
    ("grpc.service_config_disable_resolution", 1),
    # A proxy that somebody set for the web has no business between us and the broker.
    ("grpc.enable_http_proxy", 0),
    # A client of its own connections: closing another one ends none of them.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own 1 s to 2 min is for strangers: a broker that restarts is wanted back at once, and
    # before the next one goes. Shorter than the retries above take.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A connection that died in silence is noticed while a stream waits on it. The broker allows a
    # ping every 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def open_channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    """Returns a channel of this event loop, which connects when it is used.

    Raises:
        ValueError: tokens would be shown to the network.
        OSError: a file cannot be read.
    """
    credentials.check(address)
    if credentials.ca_file is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    tls = grpc.ssl_channel_credentials(
        root_certificates=Path(credentials.ca_file).read_bytes(),
        private_key=_read(credentials.key_file),
        certificate_chain=_read(credentials.cert_file),
    )
    return grpc.aio.secure_channel(address, tls, options=_OPTIONS)


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
