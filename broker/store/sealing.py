"""Sealing: what makes a secret storable (law 7), with a Tink AEAD keyset from a file.

A sealed value opens only where it was sealed for: the table, tenant, field and generation are its
associated data, so that a value copied to another row is unreadable there. The file is read again
when it has changed, before sealing and whenever a key is missing. A changed file that cannot be
read changes nothing: the keys that were read last go on, and `problem` says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import tink
from tink import aead
from tink.proto import tink_pb2

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.secret import Secret
from broker.store.keysets import KeysetFile, KeysetUnwrapper, new_keyset, read_keyset_file, written
from broker.store.keysets import KeysetUnreadableError as KeysetUnreadableError  # noqa: PLC0414 - whoever seals meets it
from broker.store.unreadable import UnreadableRecords


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

REFUSED_SECONDS: Final = 15.0
"""Until a file that could not be read is tried again, unless it is replaced before: a KMS that is
away may keep the event loop for a second each time, and every value that is sealed looks here."""

_TRIAL: Final = Place(table="none", tenant="none", field="trial", row="none")


class Keyring:
    """Seals under the primary key and opens under any that is enabled. Made by `from_file`."""

    def __init__(
        self,
        path: Path,
        *,
        unreadable: UnreadableRecords | None = None,
        unwrapper: KeysetUnwrapper | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds that never go back. Otherwise as `from_file`."""
        self._clock = clock
        self._refused: _Stamp | None = None
        self._again_at = 0.0
        self._lacked: set[int] = set()
        self.unreadable = UnreadableRecords() if unreadable is None else unreadable
        self._unwrapper = unwrapper
        self._path = path
        # The stamp first: a file that is replaced before it is read is read again at the next look.
        self._stamp = _stamp(path)
        self._keyset = _read_keyset(path, unwrapper)
        self.problem: str | None = None

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        unreadable: UnreadableRecords | None = None,
        unwrapper: KeysetUnwrapper | None = None,
    ) -> Keyring:
        """Reads a keyset in Tink's JSON format, in clear or wrapped.

        `unreadable` is told what does not open; `unwrapper` None: the installed one, if need be.

        Raises:
            KeysetUnreadableError: it cannot be read.
        """
        return cls(path, unreadable=unreadable, unwrapper=unwrapper)

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
        has = self._keyset.has(key_id)
        if not has:
            self._lacked.add(key_id)
        return has

    def has_lacked(self) -> bool:
        """Whether a key was asked for since the last time that is still not there."""
        lacked = any(not self._keyset.has(key_id) for key_id in self._lacked)
        self._lacked.clear()
        return lacked

    def reload_if_changed(self) -> None:
        """Reads the file again if it is another one than the one that was read last."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._refused and self._clock() < self._again_at:
                return  # and the problem is what it was
            if stamp != self._stamp:
                self._refused, self._again_at = stamp, self._clock() + REFUSED_SECONDS
                self._keyset = self._successor(_read_keyset(self._path, self._unwrapper))
                self._stamp = stamp
            self._refused = self.problem = None
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
            self.unreadable.met(table=place.table, tenant=place.tenant, field=place.field)
            message = f"a value of {place.table} does not open: moved, altered, or not ours"
            raise RecordUnreadable(message, tenant=place.tenant, metadata=key_id) from error
        self.unreadable.opened(table=place.table, tenant=place.tenant, field=place.field)
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
    return written(new_keyset())


def described(keyset: KeysetFile) -> tuple[KeyDescription, ...]:
    """Returns the keys of a file, in its order, without the keys."""
    info = keyset.handle.keyset_info()
    return tuple(_describe(key, primary=info.primary_key_id) for key in info.key_info)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise KeysetUnreadableError(f"keyset {path}: {error.strerror}") from error
    # A mounted secret is replaced by another file behind a link, which may be as old and as long.
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read_keyset(path: Path, unwrapper: KeysetUnwrapper | None) -> Keyset:
    keyset = read_keyset_file(path, unwrapper=unwrapper)
    try:
        primitive = keyset.handle.primitive(aead.Aead)
    except tink.TinkError:
        # Without the cause: its words may quote what it met.
        raise KeysetUnreadableError(f"keyset {path}: not an AEAD keyset in Tink's JSON") from None
    return Keyset(primitive=primitive, primary_key_id=keyset.primary_key_id, keys=described(keyset))


def _describe(key: tink_pb2.KeysetInfo.KeyInfo, *, primary: int) -> KeyDescription:
    status = tink_pb2.KeyStatusType.Name(key.status)
    return KeyDescription(key_id=key.key_id, status=status, is_primary=key.key_id == primary)
