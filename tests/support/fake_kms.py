"""A KMS of nobody's: one AES key in this process, counted, and it can be away."""

from __future__ import annotations

import tink
from tink import aead


class KmsAwayError(Exception):
    """It does not answer; its words could be anything."""


class FakeKms:
    """Upholds `store.keysets.KeysetUnwrapper`."""

    def __init__(self) -> None:
        aead.register()
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES128_GCM)
        self._primitive: aead.Aead = handle.primitive(aead.Aead)
        self.is_away = False
        self.unwrapped = 0
        self.refused = 0

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._refuse()
        ciphertext: bytes = self._primitive.encrypt(plaintext, associated_data)
        return ciphertext

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self._refuse()
        self.unwrapped += 1
        plaintext: bytes = self._primitive.decrypt(ciphertext, associated_data)
        return plaintext

    def _refuse(self) -> None:
        if self.is_away:
            self.refused += 1
            raise KmsAwayError("hush: the account's own words")
