"""The sealed pair of a grant's row, both ways.

Both tokens are sealed under one key and for the pair's generation. A pair that does not open is
read as `UnreadablePair`: our fault, about which Pleo has said nothing (law 5).
"""

from __future__ import annotations

from typing import Final

import asyncpg

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.grant import GrantState, TokenPair, UnreadablePair
from broker.domain.secret import AccessToken, RefreshToken, Secret
from broker.store.sealing import Keyring, Place, Sealed, to_bytes, to_secret

PAIR_COLUMNS: Final = (
    "pair_generation, sealed_access_token, sealed_refresh_token, token_type, key_id"
)
"""Everything that `pair_of` reads."""

_SERVING: Final = frozenset({GrantState.ACTIVE.value, GrantState.HELD.value})

_NO_PAIR: Final = {
    "pair_generation": None,
    "sealed_access_token": None,
    "sealed_refresh_token": None,
    "token_type": None,
    "key_id": None,
}


def seal_pair(keyring: Keyring, tenant: str, *, pair: TokenPair | None) -> dict[str, object]:
    """Returns what the sealed columns are to hold.

    Raises:
        KeyUnavailable: the keyring does not seal.
    """
    if pair is None:
        return dict(_NO_PAIR)
    # Once for both: a file that is replaced in between would seal them under two keys, and the row
    # has room for one key's id.
    keyset = keyring.newest()

    def sealed(field: str, secret: Secret | None) -> bytes | None:
        if secret is None:
            return None
        return keyset.seal(to_bytes(secret), pair_place(tenant, field, pair.generation)).ciphertext

    return {
        "pair_generation": pair.generation,
        "sealed_access_token": sealed("access_token", pair.access_token),
        "sealed_refresh_token": sealed("refresh_token", pair.refresh_token),
        "token_type": pair.token_type,
        "key_id": keyset.primary_key_id,
    }


def pair_of(keyring: Keyring, row: asyncpg.Record) -> TokenPair | UnreadablePair | None:
    """Returns the pair of a row that has tenant, state, generation and the `PAIR_COLUMNS`."""
    if row["pair_generation"] is None:
        return None
    if row["state"] in _SERVING and row["pair_generation"] != row["generation"]:
        # Only a revocation keeps a pair of an older generation. Elsewhere somebody has put an old
        # value back together with its number, and it would open: a refresh token that Pleo has
        # seen already may end the grant when it is shown again.
        keyring.unreadable.met(table="grants", tenant=row["tenant"], field="pair_generation")
        return _unreadable(row, is_key_missing=False)
    try:
        access_token = _opened(keyring, row, "access_token")
        refresh_token = _opened(keyring, row, "refresh_token")
    except (KeyUnavailable, RecordUnreadable) as error:
        return _unreadable(row, is_key_missing=isinstance(error, KeyUnavailable))
    return TokenPair(
        access_token=None if access_token is None else AccessToken(access_token),
        refresh_token=None if refresh_token is None else RefreshToken(refresh_token),
        generation=row["pair_generation"],
        token_type=row["token_type"],
    )


def _unreadable(row: asyncpg.Record, *, is_key_missing: bool) -> UnreadablePair:
    return UnreadablePair(
        generation=row["pair_generation"], key_id=row["key_id"], is_key_missing=is_key_missing
    )


def _opened(keyring: Keyring, row: asyncpg.Record, field: str) -> Secret | None:
    ciphertext = row[f"sealed_{field}"]
    if ciphertext is None:
        return None
    sealed = Sealed(ciphertext=ciphertext, key_id=row["key_id"])
    return to_secret(
        keyring.unseal(sealed, pair_place(row["tenant"], field, row["pair_generation"]))
    )


def pair_place(tenant: str, field: str, generation: int) -> Place:
    """Returns where a token of a pair lies; `field`: `access_token` or `refresh_token`."""
    return Place(table="grants", tenant=tenant, field=field, row=str(generation))
