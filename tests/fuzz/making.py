"""Makes requests from the API's descriptors: nearly good ones, absurd ones, and no requests at all.

Pure but for the dice that it is given, so that a seed makes the same requests again. Knows no call
by name: one that is added is fuzzed from its first day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.sandbox.settings import DEMO_CLIENT
from broker.v1 import grant_service_pb2, operations_service_pb2, token_service_pb2

MARK: Final = "fuzzed-secret-"
"""Begins whatever stands in a field of secrets, so that nobody can repeat it unseen."""

LARGEST: Final = 128 * 1024
"""Bytes of a request that the server takes."""

TENANTS: Final = ("acme", "eu/acme", "fuzz-1", "fuzz-2", "fuzz-3", "a" * 200)

_LENGTHS: Final = (0, 1, 15, 16, 100, 101, 128, 129, 200, 201, 500, 501, 2000, 4096, 4097, 16_384)
_COUNTS: Final = (0, 0, 1, 1, 2, 3, 100, 101, 1000, 1001)
_LETTERS: Final = ("a", " ", "\0", "\n", "\x7f", "\x9f", "é", "\u202e", "\ufeff", "😀", "%", "*")
_GOOD: Final[dict[str, tuple[str, ...]]] = {
    "tenant": TENANTS,
    "tenants": TENANTS,
    "scopes": ("export-items:read", "accounts:read"),
    "redirect_uri": ("", "", *DEMO_CLIENT.redirect_uris),
    "expected_subject": ("", "", "urn:pleo:company:1", "ü" * 200),
    "error": ("access_denied", "server_error"),
    "reason": ("because", "😀" * 500),
    "page_token": ("",),
}
"""By the names of fields; where a field is not here, any text may be good."""

_TEXTS: Final = (
    "export-items:read",
    "urn:pleo:company:1",
    "https://elsewhere.example/callback",
    "javascript:alert(1)",
    "'; DROP TABLE grants; --",
    "{}",
    "../../etc/passwd",
)
_ENUM_NUMBERS: Final = (0, 1, 2, 3, 4, -1, 2**31 - 1, -(2**31))
_EDGES: Final[tuple[int, ...]] = (0, 1, 2, 7, 99, 1000, 2**31 - 1, 2**31, 2**53, 2**63 - 1)
# Of protobuf's Timestamp: its first and last second, and beyond; then a year from 2026.
_SECONDS: Final = (0, -1, -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800)
_NANOS: Final = (0, 0, 0, 1, -1, 999_999_999, 1_000_000_000, 2**31 - 1, -(2**31))
_SOON: Final = 1_800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something to send, and the secrets that nobody may repeat."""

    method: MethodDescriptor
    encoded: bytes
    secrets: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """As gRPC has it."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def __str__(self) -> str:
        """A line of the corpus."""
        return f"{self.path} {self.encoded.hex()}"


def methods() -> list[MethodDescriptor]:
    """Returns every call of every service."""
    files = (token_service_pb2, grant_service_pb2, operations_service_pb2)
    services = [each for file in files for each in file.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


@dataclass(slots=True)
class Maker:
    """Makes requests."""

    dice: Random
    bindings: tuple[bytes, ...] = (b"sixteen bytes ok",)
    _secrets: list[str] = field(default_factory=list)

    def request(self) -> Request:
        """Makes a request of some call."""
        method = self.dice.choice(methods())
        self._secrets = []
        message = GetMessageClass(method.input_type)()
        self._fill(message, method.input_type)
        encoded = self._spoilt(message.SerializeToString())
        return Request(method=method, encoded=encoded, secrets=tuple(self._secrets))

    def _fill(self, message: Message, descriptor: Descriptor) -> None:
        # Nearly good, so that what lies behind the checks is reached as well.
        is_careful = self.dice.random() < 0.6
        for each in _one_of_each(self.dice, descriptor):
            if self.dice.random() < (0.95 if is_careful else 0.7):
                self._set(message, each, is_careful=is_careful)

    def _set(self, message: Message, each: FieldDescriptor, *, is_careful: bool) -> None:
        if each.is_repeated:
            count = self.dice.choice((0, 1, 2) if is_careful else _COUNTS)
            held = getattr(message, each.name)
            held.extend(self._value(each, is_careful=is_careful) for _ in range(count))
        elif each.message_type is not None:
            part = getattr(message, each.name)
            part.SetInParent()
            if {"seconds", "nanos"} <= set(each.message_type.fields_by_name):
                part.seconds, part.nanos = self._time(is_careful=is_careful)
            else:
                self._fill(part, each.message_type)
        else:
            setattr(message, each.name, self._value(each, is_careful=is_careful))

    def _value(self, each: FieldDescriptor, *, is_careful: bool) -> object:
        match each.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                return (
                    self._bytes()
                    if each.type == each.TYPE_BYTES
                    else self._text(each, is_careful=is_careful)
                )
            case FieldDescriptor.CPPTYPE_BOOL:
                return self.dice.random() < 0.5
            case FieldDescriptor.CPPTYPE_ENUM:
                return self.dice.choice(
                    (1, 2) if is_careful else (0, 3, 4, -1, 2**31 - 1, -(2**31))
                )
            case FieldDescriptor.CPPTYPE_INT64:
                return self._number(64)
            case _:
                return self._number(32)

    def _number(self, bits: int) -> int:
        value = self.dice.choice(_EDGES) * self.dice.choice((1, 1, 1, -1))
        half = 1 << (bits - 1)
        return max(-half, min(value, half - 1))

    def _time(self, *, is_careful: bool) -> tuple[int, int]:
        if is_careful:
            return _SOON + self.dice.randrange(-(10**8), 10**8), self.dice.randrange(10**9)
        return self.dice.choice((*_SECONDS, *_EDGES)), self.dice.choice(_NANOS)

    def _bytes(self) -> bytes:
        if self.dice.random() < 0.8:
            return self.dice.choice(self.bindings)
        return self.dice.randbytes(self.dice.choice((0, 1, 15, 16, 17, 127, 128, 129, 5000)))

    def _text(self, each: FieldDescriptor, *, is_careful: bool) -> str:
        if each.GetOptions().debug_redact:
            secret = f"{MARK}{self.dice.randrange(10**12):012}"
            self._secrets.append(secret)
            return secret if is_careful else f"{secret}{self._odd_text()}"
        if is_careful or self.dice.random() < 0.5:
            return self.dice.choice(_GOOD.get(each.name, _TEXTS))
        return self._odd_text()

    def _odd_text(self) -> str:
        letter = self.dice.choice(_LETTERS)
        return letter * self.dice.choice(_LENGTHS) + self.dice.choice(("", "", *_TEXTS))

    def _spoilt(self, encoded: bytes) -> bytes:
        if self.dice.random() < 0.7:
            return encoded
        return self.dice.choice(_SPOILING)(self.dice, encoded)


def _one_of_each(dice: Random, descriptor: Descriptor) -> Iterator[FieldDescriptor]:
    """Gives the fields, of a oneof only some one."""
    for each in descriptor.fields:
        oneof = each.containing_oneof
        if oneof is None or len(oneof.fields) == 1 or each is dice.choice(list(oneof.fields)):
            yield each


def _cut(dice: Random, encoded: bytes) -> bytes:
    return encoded[: dice.randrange(len(encoded) + 1)]


def _flipped(dice: Random, encoded: bytes) -> bytes:
    spoilt = bytearray(encoded or b"\0")
    for _ in range(dice.randrange(1, 9)):
        spoilt[dice.randrange(len(spoilt))] ^= 1 << dice.randrange(8)
    return bytes(spoilt)


def _twice(dice: Random, encoded: bytes) -> bytes:
    return encoded * dice.randrange(2, 5)


def _garbage(dice: Random, _: bytes) -> bytes:
    return dice.randbytes(dice.choice((1, 2, 10, 100, 5000)))


def _no_utf_8(dice: Random, encoded: bytes) -> bytes:
    bad = dice.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"))
    return encoded + bytes([8 * dice.randrange(1, 8) + 2, len(bad)]) + bad


def _unknown_fields(dice: Random, encoded: bytes) -> bytes:
    # Field 1000 to 1003, of the kinds varint, 64 bits, bytes and group (the last never ends).
    added = (b"\xc0\x3e\x01", b"\xc9\x3e" + b"\xff" * 8, b"\xd2\x3e\x03abc", b"\xdb\x3e")
    return encoded + dice.choice(added)


def _oversize(dice: Random, encoded: bytes) -> bytes:
    size = max(10, LARGEST - len(encoded) + dice.choice((-10, -4, 1, 5000)))
    return encoded + b"\xd2\x3e" + _varint(size - 5) + b"x" * (size - 5)


def _deep(dice: Random, _: bytes) -> bytes:
    """Groups within groups, as deep as no parser goes."""
    return b"\xdb\x3e" * dice.choice((50, 99, 101, 30_000))


def _long_length(_: Random, encoded: bytes) -> bytes:
    return encoded + b"\x0a" + b"\xff" * 9 + b"\x01"


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


_SPOILING: Final = (
    _cut,
    _flipped,
    _twice,
    _garbage,
    _no_utf_8,
    _unknown_fields,
    _oversize,
    _deep,
    _long_length,
)
