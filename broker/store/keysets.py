"""A keyset as a file: read in clear or wrapped by a KMS, and changed one step at a time.

Upholds of every step of a rotation: no key is lost but the one that is removed, the primary key is
never removed, and what was wrapped is wrapped again. Which rows use a key is not known here.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

import tink
from tink import aead, secret_key_access
from tink.proto import tink_pb2

UNWRAPPERS: Final = "token_broker.keyset_unwrapper"
"""The entry-point group in which a site's package names a function without parameters that returns
its `KeysetUnwrapper`. Where it is, with which credentials, that package knows."""

_NO_ASSOCIATED_DATA: Final = b""
"""As Tinkey writes encrypted keysets, so that its tools open ours and we theirs."""

_MOST_KEY_IDS: Final = 2**31
"""Tink's own keys have ids below this."""


class KeysetUnreadableError(ValueError):
    """The keyset file is missing, no keyset, or of another kind. Never holds its content."""


class KeysetStepRefusedError(ValueError):
    """A step that would lose a key, or make no sense. Nothing was changed."""


class KeysetUnwrapper(Protocol):
    """A key of a KMS that keysets are encrypted with. Every Tink `Aead` is one.

    Called when a file has been replaced, on the event loop: it must answer within a second or so,
    or raise. Whatever it raises, the keys that were read last go on.
    """

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Encrypts a keyset."""
        ...

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Decrypts a keyset."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetFile:
    """What a file holds."""

    handle: tink.KeysetHandle
    is_wrapped: bool

    @property
    def primary_key_id(self) -> int:
        """The key that values are sealed under."""
        primary: int = self.handle.keyset_info().primary_key_id
        return primary

    @property
    def key_ids(self) -> frozenset[int]:
        """The ids of all keys, also of those that are disabled."""
        return frozenset(key.key_id for key in self.handle.keyset_info().key_info)


def installed_unwrapper() -> KeysetUnwrapper:
    """Returns the one that a package of this site supplies.

    Raises:
        KeysetUnreadableError: there is none, there are several, or it fails.
    """
    found = list(entry_points(group=UNWRAPPERS))
    if len(found) != 1:
        names = ", ".join(sorted(each.value for each in found)) or "none is installed"
        raise KeysetUnreadableError(
            f"a wrapped keyset needs one package with an entry point of {UNWRAPPERS}: {names}"
        )
    try:
        unwrapper: KeysetUnwrapper = found[0].load()()
    except Exception as error:  # noqa: BLE001 - a site's code fails in ways of its own
        what = f"{UNWRAPPERS} {found[0].value}: {type(error).__name__}"
        raise KeysetUnreadableError(what) from None
    return unwrapper


def read_keyset_file(path: Path, *, unwrapper: KeysetUnwrapper | None = None) -> KeysetFile:
    """Reads a keyset in Tink's JSON format, in clear or encrypted.

    `unwrapper` None: the installed one, where one is needed.

    Raises:
        KeysetUnreadableError: it cannot be read.
    """
    aead.register()
    try:
        text = path.read_text()
        if not _is_wrapped(text):
            handle = tink.json_proto_keyset_format.parse(text, secret_key_access.TOKEN)
            return KeysetFile(handle=handle, is_wrapped=False)
    except OSError as error:
        raise KeysetUnreadableError(f"keyset {path}: {error.strerror}") from error
    except (tink.TinkError, UnicodeDecodeError):
        # Without the cause: a parser's error quotes what it met, which may be a key.
        raise KeysetUnreadableError(f"keyset {path}: not an AEAD keyset in Tink's JSON") from None
    return KeysetFile(handle=_unwrapped(path, text, unwrapper), is_wrapped=True)


def written(keyset: KeysetFile, *, unwrapper: KeysetUnwrapper | None = None) -> str:
    """Returns the text of a file: a secret, unless it is wrapped.

    Raises:
        KeysetUnreadableError: it cannot be wrapped.
    """
    if not keyset.is_wrapped:
        text: str = tink.json_proto_keyset_format.serialize(keyset.handle, secret_key_access.TOKEN)
        return text
    wrapping = unwrapper or installed_unwrapper()
    try:
        wrapped: str = tink.json_proto_keyset_format.serialize_encrypted(
            keyset.handle, wrapping, _NO_ASSOCIATED_DATA
        )
    except Exception as error:  # noqa: BLE001 - a KMS fails in ways of its own
        raise KeysetUnreadableError(f"the KMS does not wrap: {type(error).__name__}") from None
    return wrapped


def new_keyset(*, is_wrapped: bool = False) -> KeysetFile:
    """Returns a keyset of one AES-256-GCM key."""
    aead.register()
    # Its nonces are random, so a key is good for 2**32 values (NIST SP 800-38D §8.3), two a
    # rotation: a fleet of thousands of customers takes years for that, and keys are rotated before.
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    return KeysetFile(handle=handle, is_wrapped=is_wrapped)


def with_new_key(keyset: KeysetFile) -> tuple[KeysetFile, int]:
    """Returns the keyset with one more key, which opens and does not seal yet, and its id."""
    proto = _proto_of(keyset)
    added = proto.key.add()
    added.CopyFrom(_proto_of(new_keyset()).key[0])
    while added.key_id in keyset.key_ids:
        added.key_id = 1 + secrets.randbelow(_MOST_KEY_IDS - 1)
    return _keyset_of(proto, keyset), added.key_id


def with_primary(keyset: KeysetFile, key_id: int) -> KeysetFile:
    """Returns the keyset that seals under this key from now on.

    Raises:
        KeysetStepRefusedError: there is no such key, it is disabled, or it is primary already.
    """
    proto = _proto_of(keyset)
    if key_id == proto.primary_key_id:
        raise KeysetStepRefusedError(f"key {key_id} is the primary key already")
    if all(key.key_id != key_id or key.status != tink_pb2.ENABLED for key in proto.key):
        raise KeysetStepRefusedError(f"the keyset has no key {key_id} that is enabled")
    proto.primary_key_id = key_id
    return _keyset_of(proto, keyset)


def without_key(keyset: KeysetFile, key_id: int) -> KeysetFile:
    """Returns the keyset without this key: what is sealed under it can never be opened again.

    Raises:
        KeysetStepRefusedError: there is no such key, or it is the primary one.
    """
    proto = _proto_of(keyset)
    if key_id == proto.primary_key_id:
        raise KeysetStepRefusedError(f"key {key_id} is the primary key: promote another one first")
    kept = [key for key in proto.key if key.key_id != key_id]
    if len(kept) == len(proto.key):
        raise KeysetStepRefusedError(f"the keyset has no key {key_id}")
    return _keyset_of(tink_pb2.Keyset(primary_key_id=proto.primary_key_id, key=kept), keyset)


def _is_wrapped(text: str) -> bool:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False  # what it is then, the parser of keysets says
    return isinstance(document, dict) and "encryptedKeyset" in document


def _unwrapped(path: Path, text: str, unwrapper: KeysetUnwrapper | None) -> tink.KeysetHandle:
    unwrapping = unwrapper or installed_unwrapper()
    try:
        return tink.json_proto_keyset_format.parse_encrypted(text, unwrapping, _NO_ASSOCIATED_DATA)
    except Exception as error:  # noqa: BLE001 - likewise; its words are not ours to repeat
        what = f"keyset {path}: the KMS does not unwrap it: {type(error).__name__}"
        raise KeysetUnreadableError(what) from None


def _proto_of(keyset: KeysetFile) -> tink_pb2.Keyset:
    serialized = tink.proto_keyset_format.serialize(keyset.handle, secret_key_access.TOKEN)
    return tink_pb2.Keyset.FromString(serialized)


def _keyset_of(proto: tink_pb2.Keyset, before: KeysetFile) -> KeysetFile:
    handle = tink.proto_keyset_format.parse(proto.SerializeToString(), secret_key_access.TOKEN)
    return KeysetFile(handle=handle, is_wrapped=before.is_wrapped)
