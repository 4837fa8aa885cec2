"""The keyring: what it seals, what it opens, and what becomes of a file that changes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from broker.domain.errors import KeyUnavailable, RecordUnreadable
from broker.domain.secret import Secret
from broker.store.sealing import (
    Keyring,
    KeysetUnreadableError,
    Place,
    generate_keyset,
    to_bytes,
    to_secret,
)

THE_PLACE = Place(table="grants", tenant="acme", field="access_token", row="7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keyset.json"
    file.write_text(generate_keyset())
    return file


@pytest.fixture
def keyring(path: Path) -> Keyring:
    return Keyring.from_file(path)


def replace_file(path: Path, text: str) -> None:
    """Puts another file there, as a mounted secret is replaced."""
    newer = path.with_suffix(".new")
    newer.write_text(text)
    newer.rename(path)


def merged(first: str, second: str, *, primary: int) -> str:
    """Returns the keys of both keysets, with the primary of the first or of the second."""
    keysets = [json.loads(text) for text in (first, second)]
    return json.dumps(
        {
            "primaryKeyId": keysets[primary]["primaryKeyId"],
            "key": keysets[0]["key"] + keysets[1]["key"],
        }
    )


def disabled(text: str) -> str:
    """Returns the keyset with its first key disabled."""
    keyset = json.loads(text)
    keyset["key"][0]["status"] = "DISABLED"
    return json.dumps(keyset)


def test_what_was_sealed_opens_in_its_place(keyring: Keyring) -> None:
    sealed = keyring.seal(b"secret", THE_PLACE)

    assert keyring.unseal(sealed, THE_PLACE) == b"secret"
    assert b"secret" not in sealed.ciphertext


def test_the_same_value_is_never_sealed_the_same_way(keyring: Keyring) -> None:
    sealed = {keyring.seal(b"secret", THE_PLACE).ciphertext for _ in range(100)}

    assert len(sealed) == 100


@pytest.mark.parametrize(
    "elsewhere",
    [
        replace(THE_PLACE, table="imports"),
        replace(THE_PLACE, tenant="other"),
        replace(THE_PLACE, field="refresh_token"),
        replace(THE_PLACE, row="8"),
        # The same characters, parted elsewhere.
        replace(THE_PLACE, tenant="acmeaccess_", field="token"),
        replace(THE_PLACE, tenant='acme", "access_token', field=""),
    ],
)
def test_nothing_opens_elsewhere(keyring: Keyring, elsewhere: Place) -> None:
    sealed = keyring.seal(b"secret", THE_PLACE)

    with pytest.raises(RecordUnreadable) as raised:
        keyring.unseal(sealed, elsewhere)

    assert raised.value.tenant == elsewhere.tenant


def test_a_key_of_another_keyset_is_missing(keyring: Keyring, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(generate_keyset())
    sealed = Keyring.from_file(other).seal(b"secret", THE_PLACE)

    with pytest.raises(KeyUnavailable) as raised:
        keyring.unseal(sealed, THE_PLACE)

    assert raised.value.metadata == {"key_id": str(sealed.key_id)}


def test_a_key_that_was_added_is_found_when_it_is_missed(keyring: Keyring, path: Path) -> None:
    newer = generate_keyset()
    other = path.with_name("other.json")
    other.write_text(newer)
    sealed = Keyring.from_file(other).seal(b"secret", THE_PLACE)

    replace_file(path, merged(path.read_text(), newer, primary=0))

    assert keyring.unseal(sealed, THE_PLACE) == b"secret"


def test_a_promoted_key_seals_from_then_on(keyring: Keyring, path: Path) -> None:
    before = keyring.seal(b"secret", THE_PLACE)
    newer = generate_keyset()
    replace_file(path, merged(path.read_text(), newer, primary=1))

    after = keyring.seal(b"secret", THE_PLACE)

    assert after.key_id == json.loads(newer)["primaryKeyId"] != before.key_id
    assert keyring.unseal(before, THE_PLACE) == b"secret"


def test_a_disabled_key_is_missing(keyring: Keyring, path: Path) -> None:
    sealed = keyring.seal(b"secret", THE_PLACE)
    replace_file(path, merged(disabled(path.read_text()), generate_keyset(), primary=1))
    keyring.reload_if_changed()

    with pytest.raises(KeyUnavailable):
        keyring.unseal(sealed, THE_PLACE)


def test_the_keys_are_described_without_the_keys(keyring: Keyring, path: Path) -> None:
    first = path.read_text()
    replace_file(path, merged(disabled(first), generate_keyset(), primary=1))

    keyring.reload_if_changed()

    described = [(key.status, key.is_primary) for key in keyring.describe()]
    assert described == [("DISABLED", False), ("ENABLED", True)]
    assert json.loads(first)["key"][0]["keyData"]["value"] not in repr(keyring.describe())


def test_a_file_that_became_unreadable_leaves_the_keys_as_they_were(
    keyring: Keyring, path: Path
) -> None:
    sealed = keyring.seal(b"secret", THE_PLACE)
    path.write_text("half a f")

    keyring.reload_if_changed()

    assert keyring.unseal(sealed, THE_PLACE) == b"secret"
    assert keyring.problem == f"keyset {path}: not an AEAD keyset in Tink's JSON"


def test_a_file_that_is_gone_is_a_problem_until_it_is_back(keyring: Keyring, path: Path) -> None:
    text = path.read_text()
    path.unlink()
    keyring.reload_if_changed()
    problem = keyring.problem

    path.write_text(text)
    keyring.reload_if_changed()

    assert problem == f"keyset {path}: No such file or directory"
    assert keyring.problem is None


def test_a_file_of_the_same_age_and_size_is_read_again(path: Path) -> None:
    older, newer = "older", "new"
    while len(older) != len(newer):
        keysets = generate_keyset(), generate_keyset()
        older, newer = (merged(*keysets, primary=primary) for primary in (0, 1))
    path.write_text(older)
    keyring, status = Keyring.from_file(path), path.stat()
    replace_file(path, newer)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    keyring.reload_if_changed()

    primary = next(key.key_id for key in keyring.describe() if key.is_primary)
    assert primary == json.loads(newer)["primaryKeyId"]


def test_a_file_without_the_key_that_sealed_so_far_is_not_taken(
    keyring: Keyring, path: Path
) -> None:
    before = keyring.describe()
    replace_file(path, generate_keyset())

    keyring.reload_if_changed()

    assert keyring.describe() == before
    assert keyring.problem is not None
    assert str(before[0].key_id) in keyring.problem


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '{"primaryKeyId": 5, "key": [{"secret": "hush"}]}', "\udcff"],
)
def test_what_is_no_keyset_is_refused_without_repeating_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keyset.json"
    path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(KeysetUnreadableError, match="not an AEAD keyset") as raised:
        Keyring.from_file(path)

    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_keyset_of_another_kind_is_refused(tmp_path: Path) -> None:
    keyset = json.loads(generate_keyset())
    keyset["key"][0]["keyData"]["typeUrl"] = "type.googleapis.com/google.crypto.tink.HmacKey"
    path = tmp_path / "keyset.json"
    path.write_text(json.dumps(keyset))

    with pytest.raises(KeysetUnreadableError):
        Keyring.from_file(path)


def test_a_trial_passes_where_sealing_works(keyring: Keyring) -> None:
    keyring.try_out()


@pytest.mark.parametrize("text", ["", "ascii", "ü", "\x00", "\ud800", "x" * 100_000])
def test_every_text_survives_as_bytes(text: str) -> None:
    assert to_secret(to_bytes(Secret(text))).reveal() == text
