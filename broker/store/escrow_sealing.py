"""Sealing for escrows: the keyset of the grants, bound to tenant and attempt."""

from __future__ import annotations

from typing import Final

from broker.store.sealing import Keyring, Place, Sealed

_ID_BYTES: Final = 4
"""Tink's key ids are 32 bits."""


class EscrowSealer:
    """Seals with a keyring. Upholds `lease.escrows.Sealer`.

    The key's id travels with the sealed value, so that a replica that lacks it reads its keyset
    again.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, clear: bytes, *, tenant: str, number: int) -> bytes:
        """See `Sealer.seal`."""
        sealed = self._keyring.seal(clear, _place(tenant, number))
        return sealed.key_id.to_bytes(_ID_BYTES) + sealed.ciphertext

    def key_id_of(self, sealed: bytes) -> int:
        """See `Sealer.key_id_of`."""
        return int.from_bytes(sealed[:_ID_BYTES])

    def unseal(self, sealed: bytes, *, tenant: str, number: int) -> bytes:
        """See `Sealer.unseal`."""
        key_id, ciphertext = self.key_id_of(sealed), sealed[_ID_BYTES:]
        return self._keyring.unseal(
            Sealed(ciphertext=ciphertext, key_id=key_id), _place(tenant, number)
        )


def _place(tenant: str, number: int) -> Place:
    return Place(table="escrows", tenant=tenant, field="pair", row=str(number))
