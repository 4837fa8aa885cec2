"""Requests that are no message: refused as the invalid ones that they are, by the edge.

Not where they are read: who asks is decided first. Without this gRPC answers with protobuf's text,
a status of its own, and an error in the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, TypeAlias, cast

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message

from broker.domain.errors import FieldViolation, InvalidRequest
from broker.rpc.caller import Context
from broker.rpc.table import Handler

PACKAGE: Final = "/broker.v1."
"""What the paths of our own methods begin with."""

Deserializer: TypeAlias = Callable[[bytes], Message]

Streaming: TypeAlias = Callable[[object, Context], AsyncGenerator[Message, None]]
"""Answers with a stream. What is asked may be a stream of messages, too."""


class _Unreadable:
    """Stands for a request that is no message, on its way to where a failure can be told."""

    __slots__ = ("error",)

    def __init__(self, expected: str) -> None:
        self.error = InvalidRequest([FieldViolation(field="", description=expected)])


def reader(method: str, handler: Handler) -> Deserializer:
    """Returns what reads a request of a method, or says what it should have been."""
    read = cast("Deserializer", handler.request_deserializer)
    name = f"{PACKAGE}{method}".strip("/").replace("/", ".")
    asked = descriptor_pool.Default().FindMethodByName(name).input_type.full_name

    def read_or_say(encoded: bytes) -> Message:
        try:
            return read(encoded)
        except DecodeError:
            said = _Unreadable(f"must be a {asked} message in protobuf's encoding")
            return cast("Message", said)  # gRPC passes on whatever it is

    return read_or_say


def refuse_unreadable(request: object) -> None:
    """Lets pass what is a message.

    Raises:
        InvalidRequest: it is none.
    """
    if isinstance(request, _Unreadable):
        raise request.error


def reading_each(behaviour: Streaming) -> Streaming:
    """Has what is no message refused where it comes in the stream of requests."""

    def answers(requests: object, context: Context) -> AsyncGenerator[Message, None]:
        return behaviour(_readable(cast("AsyncIterator[Message]", requests)), context)

    return answers


async def _readable(requests: AsyncIterator[Message]) -> AsyncGenerator[Message, None]:
    async for request in requests:
        refuse_unreadable(request)
        yield request
