"""Sealing: what makes a secret storable (law 7), with a Tink AEAD keyset from a file.

A sealed value opens only where it was sealed for: the table, tenant, field and generation are its
associated data, so that a value copied to another row is unreadable there. The file is read again
when it has changed, before sealing and whenever a key is missing. A changed file that cannot be
read changes nothing: the keys that were read last go on, and `problem` says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import tink
from tink import aead, secret_key_access
from tink.proto import tink_pb2

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.secret import Secret


class KeysetUnreadableError(ValueError):
    """The keyset file is missing, no keyset, or of another kind. Never holds its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sealed value lies, and nowhere else."""

    table: str
    tenant: str
    field: str
    row: str
    """What tells the tenant's values apart: the generation of a pair, or the hash of a state."""

    def associated_data(self) -> bytes:
        """Returns the same bytes for the same place, and no others do (a JSON array)."""
        # Not joined by a separator, which a tenant may hold: two places must never read alike.
        return json.dumps([self.table, self.tenant, self.field, self.row]).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A value that only the keyset opens."""

    ciphertext: bytes
    key_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDescription:
    """One key of the keyset, without the key."""

    key_id: int
    status: str
    """`ENABLED`, `DISABLED` or `DESTROYED`."""

    is_primary: bool
    """Whether new values are sealed under it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyset:
    """One reading of the file: what is sealed with it is sealed under one key."""

    primitive: aead.Aead
    primary_key_id: int
    keys: tuple[KeyDescription, ...]

    def seal(self, value: bytes, place: Place) -> Sealed:
        """Seals for this place, under the primary key.

        Raises:
            KeyUnavailable: the primary key does not seal.
        """
        try:
            ciphertext = self.primitive.encrypt(value, place.associated_data())
        except tink.TinkError as error:
            raise KeyUnavailable("the primary key does not seal", tenant=place.tenant) from error
        return Sealed(ciphertext=ciphertext, key_id=self.primary_key_id)

    def has(self, key_id: int) -> bool:
        """Whether the key is there, and enabled."""
        # Tink opens nothing with a key that is disabled: it is as good as missing.
        return any(key.key_id == key_id and key.status == "ENABLED" for key in self.keys)


_Stamp: TypeAlias = tuple[int, int, int]

_TRIAL: Final = Place(table="none", tenant="none", field="trial", row="none")


class Keyring:
    """Seals under the primary key and opens under any that is enabled. Made by `from_file`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The stamp first: a file that is replaced before it is read is read again at the next look.
        self._stamp = _stamp(path)
        self._keyset = _read_keyset(path)
        self.problem: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> Keyring:
        """Reads a keyset in Tink's JSON format.

        Raises:
            KeysetUnreadableError: it cannot be read.
        """
        return cls(path)

    @property
    def modified_at(self) -> float:
        """When the file that is in force was written, in seconds since 1970."""
        return self._stamp[1] / 1e9

    def describe(self) -> tuple[KeyDescription, ...]:
        """Returns the keys, in the order of the file."""
        return self._keyset.keys

    def can_open(self, key_id: int) -> bool:
        """Whether values under this key can be opened; reads the file again if it seems not."""
        if not self._keyset.has(key_id):
            self.reload_if_changed()
        return self._keyset.has(key_id)

    def reload_if_changed(self) -> None:
        """Reads the file again if it is another one than the one that was read last."""
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._keyset = self._successor(_read_keyset(self._path))
                self._stamp = stamp
            self.problem = None
        except KeysetUnreadableError as error:
            self.problem = str(error)

    def _successor(self, keyset: Keyset) -> Keyset:
        """Returns a keyset that opens what we have sealed so far.

        Every step of a rotation keeps the key that was sealed with before it; a file without that
        key is another installation's, and what it seals nobody here opens.
        """
        if all(key.key_id != self._keyset.primary_key_id for key in keyset.keys):
            raise KeysetUnreadableError(
                f"keyset {self._path}: lacks key {self._keyset.primary_key_id}, which was sealed "
                "with until now"
            )
        return keyset

    def newest(self) -> Keyset:
        """Returns the keyset as the file has it now, to seal with."""
        self.reload_if_changed()
        return self._keyset

    def seal(self, value: bytes, place: Place) -> Sealed:
        """Seals for this place. Errors as in `Keyset.seal`."""
        return self.newest().seal(value, place)

    def unseal(self, sealed: Sealed, place: Place) -> bytes:
        """Opens what was sealed for this place.

        Raises:
            KeyUnavailable: the keyset lacks the key, also after reading the file again.
            RecordUnreadable: the key is there and the value is not what was sealed here.
        """
        key_id = {"key_id": str(sealed.key_id)}
        if not self.can_open(sealed.key_id):
            message = "the keyset lacks the key of a row: roll the newest keyset out"
            raise KeyUnavailable(message, tenant=place.tenant, metadata=key_id)
        data = place.associated_data()
        try:
            value: bytes = self._keyset.primitive.decrypt(sealed.ciphertext, data)
        except tink.TinkError as error:
            message = f"a value of {place.table} does not open: moved, altered, or not ours"
            raise RecordUnreadable(message, tenant=place.tenant, metadata=key_id) from error
        return value

    def try_out(self) -> None:
        """Seals and opens something: what is about to be sent to Pleo must be storable after.

        Raises:
            KeyUnavailable, RecordUnreadable: it would not be.
        """
        self.unseal(self.seal(b"trial", _TRIAL), _TRIAL)


def to_bytes(secret: Secret) -> bytes:
    """Returns a secret as it is sealed."""
    # A token from JSON may hold lone surrogates, and is kept exactly as received.
    return secret.reveal().encode(errors="surrogatepass")


def to_secret(value: bytes) -> Secret:
    """Returns what `to_bytes` took."""
    return Secret(value.decode(errors="surrogatepass"))


def generate_keyset() -> str:
    """Returns a new keyset of one AES-256-GCM key, in Tink's JSON format. A secret."""
    aead.register()
    # Its nonces are random, so a key is good for 2**32 values (NIST SP 800-38D §8.3), two a
    # rotation: a fleet of thousands of customers takes years for that, and keys are rotated before.
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    serialized: str = tink.json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return serialized


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise KeysetUnreadableError(f"keyset {path}: {error.strerror}") from error
    # A mounted secret is replaced by another file behind a link, which may be as old and as long.
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read_keyset(path: Path) -> Keyset:
    aead.register()
    try:
        handle = tink.json_proto_keyset_format.parse(path.read_text(), secret_key_access.TOKEN)
        primitive = handle.primitive(aead.Aead)
    except OSError as error:
        raise KeysetUnreadableError(f"keyset {path}: {error.strerror}") from error
    except (tink.TinkError, UnicodeDecodeError):
        # Without the cause: a parser's error quotes what it met, which may be a key.
        raise KeysetUnreadableError(f"keyset {path}: not an AEAD keyset in Tink's JSON") from None
    info = handle.keyset_info()
    keys = tuple(_describe(key, primary=info.primary_key_id) for key in info.key_info)
    return Keyset(primitive=primitive, primary_key_id=info.primary_key_id, keys=keys)


def _describe(key: tink_pb2.KeysetInfo.KeyInfo, *, primary: int) -> KeyDescription:
    status = tink_pb2.KeyStatusType.Name(key.status)
    return KeyDescription(key_id=key.key_id, status=status, is_primary=key.key_id == primary)
