"""The API's calls as a policy names them, and whom each is about; read from the proto."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

from google.protobuf.descriptor import MethodDescriptor

from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2

REVOKE: Final = "GrantService/RevokeGrant"

DELETE_AT_PROVIDER: Final = f"{REVOKE}#provider"
"""Not a call of its own: what a caller may ask of RevokeGrant. No `*` stands for it."""

HAND_OUT: Final = frozenset(
    {
        "TokenService/GetAccessToken",
        "TokenService/BatchGetAccessTokens",
        "TokenService/WatchAccessTokens",
    }
)
"""These hand out tokens, so the scopes of a rule count."""


class About(Enum):
    """Whom a call is about."""

    ONE = auto()
    """The tenant that the request names."""

    SEVERAL = auto()
    """Tenants that the handler looks at one by one."""

    FLEET = auto()
    """All of them, whoever they are."""


_SEVERAL: Final = frozenset(
    {
        "TokenService/BatchGetAccessTokens",
        "TokenService/WatchAccessTokens",
        "GrantService/ListGrants",
    }
)


def _about(rpc: str, method: MethodDescriptor) -> About:
    # What names no tenant and is not known to look at them one by one is about the fleet: a call
    # that is added one day asks for too much rather than too little.
    if rpc in _SEVERAL:
        return About.SEVERAL
    return About.ONE if "tenant" in method.input_type.fields_by_name else About.FLEET


def _methods() -> Iterator[tuple[str, MethodDescriptor]]:
    for file in (token_service_pb2, grant_service_pb2, operations_service_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"{service.name}/{method.name}", method


ABOUT: Final = {rpc: _about(rpc, method) for rpc, method in _methods()}
"""Every call of the API."""

SERVICES: Final = tuple(dict.fromkeys(rpc.partition("/")[0] for rpc in ABOUT))
"""In the order of their declarations."""


def matching(pattern: str) -> frozenset[str]:
    """Returns the calls of a pattern, as tenants have them: a literal, `prefix*`, or `*`.

    None where there is no such call. Deleting at Pleo only by its own name.
    """
    if pattern.endswith("*"):
        return frozenset(rpc for rpc in ABOUT if rpc.startswith(pattern[:-1]))
    return frozenset({pattern}.intersection((*ABOUT, DELETE_AT_PROVIDER)))
