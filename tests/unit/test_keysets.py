"""Keyset files: each step of a rotation, and wrapped by a KMS."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tink
from tink import aead

from broker.store.keysets import (
    UNWRAPPERS,
    KeysetFile,
    KeysetStepRefusedError,
    KeysetUnreadableError,
    installed_unwrapper,
    new_keyset,
    read_keyset_file,
    with_new_key,
    with_primary,
    without_key,
    written,
)
from broker.store.sealing import REFUSED_SECONDS, Keyring, Place
from support.fake_kms import FakeKms
from support.keysets import put_keyset

THE_PLACE = Place(table="grants", tenant="acme", field="access_token", row="7")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keyset.json"


def keyring_of(path: Path, keyset: KeysetFile) -> Keyring:
    put_keyset(path, keyset)
    return Keyring.from_file(path)


def test_an_added_key_opens_and_does_not_seal(path: Path) -> None:
    before = new_keyset()

    added, key_id = with_new_key(before)

    assert added.primary_key_id == before.primary_key_id
    assert added.key_ids == before.key_ids | {key_id}
    promoted = keyring_of(path, with_primary(added, key_id)).seal(b"secret", THE_PLACE)
    assert keyring_of(path, added).unseal(promoted, THE_PLACE) == b"secret"


def test_a_promotion_loses_no_key(path: Path) -> None:
    before = new_keyset()
    sealed = keyring_of(path, before).seal(b"secret", THE_PLACE)
    added, key_id = with_new_key(before)

    promoted = with_primary(added, key_id)

    assert promoted.primary_key_id == key_id
    assert keyring_of(path, promoted).unseal(sealed, THE_PLACE) == b"secret"


def test_only_the_named_key_is_removed() -> None:
    added, second = with_new_key(new_keyset())
    added, third = with_new_key(added)

    removed = without_key(added, second)

    assert removed.key_ids == {added.primary_key_id, third}
    assert removed.primary_key_id == added.primary_key_id


def test_the_primary_key_is_never_removed() -> None:
    keyset, _ = with_new_key(new_keyset())

    with pytest.raises(KeysetStepRefusedError, match="promote another one first"):
        without_key(keyset, keyset.primary_key_id)


@pytest.mark.parametrize("step", [with_primary, without_key])
def test_a_key_that_is_not_there_is_no_step(step: object) -> None:
    assert callable(step)

    with pytest.raises(KeysetStepRefusedError, match="no key 1"):
        step(new_keyset(), 1)


def test_a_disabled_key_is_not_promoted(path: Path) -> None:
    keyset, key_id = with_new_key(new_keyset())
    document = json.loads(written(keyset))
    next(key for key in document["key"] if key["keyId"] == key_id)["status"] = "DISABLED"
    path.write_text(json.dumps(document))

    with pytest.raises(KeysetStepRefusedError, match="enabled"):
        with_primary(read_keyset_file(path), key_id)


def test_what_seals_already_is_not_promoted_again() -> None:
    keyset = new_keyset()

    with pytest.raises(KeysetStepRefusedError, match="already"):
        with_primary(keyset, keyset.primary_key_id)


@pytest.fixture
def kms() -> FakeKms:
    return FakeKms()


def test_a_wrapped_keyset_shows_no_key_and_opens_with_its_kms(path: Path, kms: FakeKms) -> None:
    keyset = new_keyset(is_wrapped=True)
    put_keyset(path, keyset, kms=kms)

    read = read_keyset_file(path, unwrapper=kms)

    assert set(json.loads(path.read_text())) == {"encryptedKeyset", "keysetInfo"}
    assert (read.is_wrapped, read.key_ids) == (True, keyset.key_ids)


def test_every_step_leaves_a_wrapped_keyset_wrapped(kms: FakeKms) -> None:
    added, key_id = with_new_key(new_keyset(is_wrapped=True))
    promoted = with_primary(added, key_id)
    removed = without_key(promoted, added.primary_key_id)

    assert all("encryptedKeyset" in written(each, unwrapper=kms) for each in (promoted, removed))


def test_tinks_own_encrypted_format_is_read(path: Path, kms: FakeKms) -> None:
    aead.register()
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    path.write_text(tink.json_proto_keyset_format.serialize_encrypted(handle, kms, b""))

    keyring = Keyring.from_file(path, unwrapper=kms)

    keyring.try_out()


def test_a_keyset_in_an_envelope_of_a_kms_is_read(path: Path, kms: FakeKms) -> None:
    template = aead.aead_key_templates.AES256_GCM
    envelope = aead.KmsEnvelopeAead(template, kms)
    put_keyset(path, new_keyset(is_wrapped=True), kms=envelope)

    Keyring.from_file(path, unwrapper=envelope).try_out()

    assert kms.unwrapped > 0


def test_a_kms_that_is_away_leaves_the_keys_as_they_were(path: Path, kms: FakeKms) -> None:
    keyset = new_keyset(is_wrapped=True)
    put_keyset(path, keyset, kms=kms)
    now = [0.0]
    keyring = Keyring(path, unwrapper=kms, clock=lambda: now[0])
    put_keyset(path, with_new_key(keyset)[0], kms=kms)
    kms.is_away = True

    keyring.reload_if_changed()
    problem = keyring.problem
    keyring.try_out()
    kms.is_away, now[0] = False, REFUSED_SECONDS
    keyring.reload_if_changed()

    assert problem == f"keyset {path}: the KMS does not unwrap it: KmsAwayError"
    assert (keyring.problem, len(keyring.describe())) == (None, 2)


def test_a_kms_that_is_away_is_not_asked_for_each_value(path: Path, kms: FakeKms) -> None:
    wrapped, now = new_keyset(is_wrapped=True), [0.0]
    put_keyset(path, wrapped, kms=kms)
    keyring = Keyring(path, unwrapper=kms, clock=lambda: now[0])
    added, key_id = with_new_key(wrapped)
    put_keyset(path, added, kms=kms)
    kms.is_away = True

    for _ in range(5):
        keyring.unseal(keyring.seal(b"fake-token", THE_PLACE), THE_PLACE)

    assert kms.refused == 1
    assert keyring.problem is not None
    kms.is_away, now[0] = False, REFUSED_SECONDS
    assert keyring.can_open(key_id)
    assert keyring.problem is None


def test_a_file_in_the_place_of_a_refused_one_is_read_at_once(path: Path, kms: FakeKms) -> None:
    keyring = keyring_of(path, new_keyset())
    added, key_id = with_new_key(read_keyset_file(path))
    path.with_suffix(".bad").write_text("no keyset")
    path.with_suffix(".bad").rename(path)
    keyring.reload_if_changed()
    assert keyring.problem is not None

    put_keyset(path, added)

    assert keyring.can_open(key_id)
    assert keyring.problem is None


def test_the_kms_is_asked_once_for_each_file(path: Path, kms: FakeKms) -> None:
    put_keyset(path, new_keyset(is_wrapped=True), kms=kms)
    before = kms.unwrapped

    keyring = Keyring.from_file(path, unwrapper=kms)
    for _ in range(10):
        keyring.try_out()

    assert kms.unwrapped == before + 1


def test_another_kms_opens_nothing(path: Path, kms: FakeKms) -> None:
    put_keyset(path, new_keyset(is_wrapped=True), kms=kms)

    with pytest.raises(KeysetUnreadableError, match="does not unwrap") as raised:
        read_keyset_file(path, unwrapper=FakeKms())

    assert raised.value.__cause__ is None


def install(site: Path, name: str, code: str) -> None:
    """Puts a package there as an installer does."""
    (site / f"{name}.py").write_text(code)
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{UNWRAPPERS}]\n{name} = {name}:unwrapper\n")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder for packages of this site."""
    folder = tmp_path / "site"
    folder.mkdir()
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in ("our_kms", "our_other_kms", "our_broken_kms"):
            sys.modules.pop(name, None)


_SUPPLIES = "from support.fake_kms import FakeKms\nTHE_KMS = FakeKms()\ndef unwrapper(): "


def test_a_package_of_the_site_supplies_the_kms(path: Path, site: Path) -> None:
    install(site, "our_kms", _SUPPLIES + "return THE_KMS\n")
    put_keyset(path, new_keyset(is_wrapped=True))

    Keyring.from_file(path).try_out()


def test_without_a_package_a_wrapped_keyset_says_what_is_missing(path: Path, kms: FakeKms) -> None:
    put_keyset(path, new_keyset(is_wrapped=True), kms=kms)

    with pytest.raises(KeysetUnreadableError, match=f"{UNWRAPPERS}: none is installed"):
        Keyring.from_file(path)


def test_two_packages_are_one_too_many(site: Path) -> None:
    install(site, "our_kms", _SUPPLIES + "return THE_KMS\n")
    install(site, "our_other_kms", _SUPPLIES + "return THE_KMS\n")

    with pytest.raises(KeysetUnreadableError, match="our_kms:unwrapper, our_other_kms:unwrapper"):
        installed_unwrapper()


def test_a_package_that_fails_is_named_without_its_words(site: Path) -> None:
    install(site, "our_broken_kms", "def unwrapper(): raise RuntimeError('hush')\n")

    with pytest.raises(KeysetUnreadableError, match=r"our_broken_kms.*RuntimeError") as raised:
        installed_unwrapper()

    assert "hush" not in str(raised.value)
