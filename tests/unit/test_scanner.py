"""A secret is found in whatever form and wherever it begins, and nothing else is."""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from urllib.parse import quote

import pytest

from broker.sandbox.mint import Mint, issued_anywhere
from support.law_seven import Ledger, Sums
from support.scanner import Hit, Scanner, is_secret
from support.secret_forms import ENCODINGS, Encoding, forms

SECRET = "sandbox-refresh-token-Zq4v+W8mK/x2Lb+T7nR/fYc3+/~="
"""With so much to escape that no long part looks the same when URL-encoded."""

SHORT = "sandbox-secret"


def found(content: bytes, secret: str = SECRET) -> set[Encoding]:
    return {hit.encoding for hit in Scanner({secret: "canary"}).hits("here", content)}


@pytest.mark.parametrize("secret", [SECRET, SHORT])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_form_is_found_wherever_it_begins(secret: str, encoding: Encoding) -> None:
    meant = {form for form, each in forms(secret).items() if each == encoding}
    filler = "filler/of+many=letters" * 3

    for form in meant:
        for before in range(40):
            assert found(filler[:before].encode() + form + b"and more", secret) == {encoding}
    assert meant or secret == SHORT


@pytest.mark.parametrize("before", range(6))
def test_base64_of_something_longer_is_recognised(before: int) -> None:
    longer = b"c" * before + SECRET.encode() + b"after"

    assert found(base64.b64encode(longer)) == {"base64"}
    assert found(base64.urlsafe_b64encode(longer)) == {"base64"}


def test_a_secret_that_is_escaped_at_its_end_alone_is_found() -> None:
    secret = "sandbox-code-Zq4vW8mKx2LbT7nRfYc3+/~="

    for before in range(40):
        assert found(b"b" * before + quote(secret, safe="").encode(), secret)


def test_the_end_of_a_secret_is_found_alone() -> None:
    assert found(SECRET[-31:].encode()) == {"clear"}


def test_what_secrets_have_in_common_is_no_hit() -> None:
    other = "sandbox-refresh-token-" + "another one's letters"

    assert found(other.encode() + secrets.token_bytes(100_000) + bytes(100_000)) == set()


@pytest.mark.parametrize("value", ["secret", "a" * 43, "", "abababababababababababab"])
def test_a_word_that_keeps_nothing_secret_is_not_looked_for(value: str) -> None:
    assert not is_secret(value)
    assert found(b"a secret " + value.encode(), value) == set()


def test_a_hit_says_where_and_how_and_never_what() -> None:
    ledger = Ledger()
    ledger.note("state", SECRET)

    ledger.keep("logs", SECRET.encode().hex().encode())
    ledger.scan([("logs", b"nothing"), ("dump", SECRET.encode())])

    assert ledger.hits.keys() == {
        Hit(medium="logs", encoding="hex", kind="state"),
        Hit(medium="dump", encoding="clear", kind="state"),
    }
    assert SECRET not in f"{ledger!r} {ledger.told()} {ledger.sums()}"


def test_the_table_adds_up_several_processes() -> None:
    ledger, sums = Ledger(), Sums()
    ledger.note("state", SECRET)
    ledger.scan([("dump", SECRET.encode())])

    for _ in range(2):
        sums.add(ledger.sums().plain())

    assert sums.scanned == {"dump": 2 * len(SECRET)}
    assert sums.hits == Counter(dump=2 * ledger.hits.total())
    assert f"hits: {sums.hits.total()}" in sums.line()
    assert "dump" in sums.table()[0]


def test_what_was_issued_outlives_its_sandbox() -> None:
    value = Mint(secrets.token_urlsafe).refresh_token(64)

    assert value in {each.value for each in issued_anywhere()}
