"""Who calls. One function tells, so that handlers need not know how identities are proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import grpc.aio
from google.protobuf.message import Message

Context: TypeAlias = grpc.aio.ServicerContext[Message, Message]

CallerOf: TypeAlias = Callable[[Context], str]
"""Returns the caller's identity, for the record and for what only the same caller may complete.

Raises `CallerUnauthenticated` where there is none that we accept. Costs next to nothing: it is
called on the way to every token.
"""

ANONYMOUS: Final = "anonymous"


def anonymous(_: Context) -> str:
    """Knows nobody: for a listener on loopback, where whoever calls is at home already."""
    return ANONYMOUS
