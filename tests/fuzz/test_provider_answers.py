"""Whatever Pleo answers, it is one of five outcomes, bounded, and no readable pair is lost.

First the pure reading, with hypothesis; then bytes on the wire, from a server without manners.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.answers import Answer, Misconfigured, Refused, Rotated
from broker.domain.fields import check_expected_subject
from broker.domain.secret import AccessToken, Secret
from broker.domain.token_response import MISCONFIGURATIONS, REFUSALS, read_answer
from broker.pleo.api_call import ApiAnswer, read_introspection
from broker.ports import Introspection
from fuzz.budget import SEED, examples, fuzzed, report
from fuzz.corpora import lines
from support.pleo import provider_at, refresh_of, window
from support.raw_server import Peer, raw_server

pytestmark = pytest.mark.timeout(0)

OUTCOMES: Final = get_args(Answer)

A_REFRESH_TOKEN = "a-fake-next-refresh-token"
GOOD: Final[dict[str, object]] = {
    "access_token": "a-fake-next-access-token",
    "refresh_token": A_REFRESH_TOKEN,
    "token_type": "Bearer",
    "expires_in": 900,
    "scope": "export-items:read",
}

A_NUMBER = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, 0, -1, True])
ODD_TEXT = st.text() | st.sampled_from(
    ["\0", "\n", "a\r\nb", "\ud800", "x" * 20_000, "NaN", "1e400", "900", "-1", *REFUSALS]
)
A_VALUE = st.recursive(
    st.none() | A_NUMBER | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
A_NAME = st.sampled_from([*GOOD, "error", "error_description", "data", "x"])
SOME_FIELDS = st.dictionaries(A_NAME, A_VALUE)
A_STATUS = st.integers(min_value=-1, max_value=1000) | st.sampled_from([200, 400, 401, 429, 500])
HEADERS = st.dictionaries(st.sampled_from(["Retry-After", "Date", "Content-Type"]), ODD_TEXT)


def encoded(fields: object) -> bytes:
    """JSON as Python writes it: with NaN, Infinity and lone surrogates."""
    return json.dumps(fields).encode()


@fuzzed(60)
@given(A_STATUS, HEADERS, st.binary() | SOME_FIELDS.map(encoded), st.binary(max_size=9))
def test_any_answer_is_one_of_the_outcomes(
    status: int, headers: dict[str, str], body: bytes, rest: bytes
) -> None:
    answer = read_answer(status, headers, body + rest)

    assert isinstance(answer, OUTCOMES)
    repr(answer)


@fuzzed(60)
@given(SOME_FIELDS, st.integers(200, 299), st.binary(max_size=50), st.integers(0, 3))
def test_a_pair_that_can_be_read_is_never_dropped(
    odd: dict[str, object], status: int, rest: bytes, blanks: int
) -> None:
    fields = {**GOOD, **odd, "refresh_token": A_REFRESH_TOKEN}
    in_front = {"refresh_token": A_REFRESH_TOKEN, **fields}

    whole = read_answer(status, {}, b" " * blanks + encoded(fields))
    broken = read_answer(status, {}, encoded(in_front) + b"}" + rest)

    assert isinstance(whole, Rotated)
    assert whole.refresh_token == Secret(A_REFRESH_TOKEN)
    # UTF-16 is guessed from the first bytes, which the rest does not change.
    assert isinstance(broken, Rotated)
    assert broken.refresh_token == Secret(A_REFRESH_TOKEN)


@fuzzed(60)
@given(SOME_FIELDS, A_STATUS, st.data())
def test_an_answer_cut_behind_its_refresh_token_is_never_dropped(
    odd: dict[str, object], status: int, data: st.DataObject
) -> None:
    odd.pop("refresh_token", None)
    body = encoded({"refresh_token": A_REFRESH_TOKEN, **odd})
    least = body.index(A_REFRESH_TOKEN.encode()) + len(A_REFRESH_TOKEN) + 1

    cut = body[: data.draw(st.integers(least, len(body)))]
    answer = read_answer(200, {}, cut)

    assert isinstance(answer, Rotated)
    assert answer.refresh_token == Secret(A_REFRESH_TOKEN)
    assert not isinstance(read_answer(status, {}, cut[:least]), Refused)


@fuzzed(60)
@given(A_STATUS, st.binary() | A_VALUE.map(encoded) | SOME_FIELDS.map(encoded))
def test_only_a_definite_word_about_the_grant_refuses_it(status: int, body: bytes) -> None:
    answer = read_answer(status, {}, body)

    if isinstance(answer, Refused | Misconfigured):
        said = json.loads(body)
        assert 400 <= status < 500
        assert said["error"] == answer.error
        assert answer.error in (REFUSALS if isinstance(answer, Refused) else MISCONFIGURATIONS)


@fuzzed(60)
@given(
    A_STATUS,
    st.binary() | SOME_FIELDS.map(lambda data: encoded({"data": data})),
    st.dictionaries(st.sampled_from(["subjectURN", "scope"]), A_VALUE),
)
def test_an_introspection_says_what_can_be_stored(
    status: int, body: bytes, data: dict[str, object]
) -> None:
    for each in (body, encoded({"data": data})):
        told = read_introspection(ApiAnswer(status=status, body=each))

        assert told.is_live in {None, status == 200} or status == 401
        assert told.subject is None or check_expected_subject(told.subject) is None
        "".join(told.scopes or ()).encode()
        assert "\0" not in "".join(told.scopes or ())


@pytest.mark.parametrize(("status", "body"), lines("answers"))
def test_a_pair_that_was_dropped_once_is_kept(status: str, body: str) -> None:
    answer = read_answer(int(status), {}, bytes.fromhex(body))

    assert isinstance(answer, Rotated)
    assert answer.refresh_token is not None


# On the wire

Spoil = Callable[[Random, bytes], bytes]

STATUS_LINES: Final = (
    b"HTTP/1.1 200 OK",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 400 No",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/",
    b"HTTP/1.1 400 Bad",
    b"HTTP/1.1 401 No",
    b"HTTP/1.1 429 Slow",
    b"HTTP/1.1 503 Down",
    b"HTTP/1.1 204 None",
    b"HTTP/1.1 999 Odd",
    b"HTTP/1.1 -1 Odd",
    b"HTTP/2.0 200 OK",
    b"ICY 200 OK",
    b"\x16\x03\x01\x00\xa5",
    b"",
)
HEADS: Final = (
    b"Content-Type: application/json",
    b"Content-Type: text/html; charset=\xff",
    b"Content-Encoding: gzip",
    b"Content-Encoding: br, zstd, gzip",
    b"Retry-After: 99999999999999999999",
    b"Retry-After: Fri, 31 Feb 2025 99:99:99 GMT",
    b"Connection: close",
    b"Connection: upgrade\r\nUpgrade: h2c",
    b"Set-Cookie: a=b",
    b"X-Long: " + b"x" * 200_000,
    b"X\0: y",
    b": empty",
    b"no colon",
    b"Content-Length: 5",
    b"Content-Length: -5",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
)
BODIES: Final = (
    encoded(GOOD),
    encoded({**GOOD, "expires_in": float("nan")}),
    encoded({**GOOD, "refresh_token": "\ud800"}),
    encoded({"error": "invalid_grant"}),
    encoded({"error": "invalid_client"}),
    encoded(GOOD)[:-40],
    gzip.compress(encoded(GOOD)),
    gzip.compress(b"\0" * 20_000_000),
    b'{"a":' * 100_000,
    b"[1, 2]",
    encoded({"data": {"subjectURN": "urn:pleo:company:1", "scope": "a:read"}}),
    b"<html>",
    b"",
    b" " * 2_000_000 + encoded(GOOD),
    b"\xff\xfe" + json.dumps(GOOD).encode("utf-16-le"),
)


def made_answer(dice: Random) -> bytes:
    """Makes bytes that a server might answer with, most of them an odd kind of HTTP."""
    body = dice.choice(BODIES)
    heads = dice.sample(HEADS, dice.choice((0, 0, 0, 1, 2, 3)))
    status_line = STATUS_LINES[0] if dice.random() < 0.4 else dice.choice(STATUS_LINES)
    if dice.random() < 0.6:
        heads.append(b"Content-Length: %d" % (len(body) + dice.choice((0, 0, 0, 5, -5, 10**6))))
    elif dice.random() < 0.6:
        heads.append(b"Transfer-Encoding: chunked")
        body = dice.choice((b"%x\r\n%b\r\n0\r\n\r\n", b"%x;a=b\r\n%b", b"-%x\r\n%b")) % (
            len(body) + dice.choice((0, 0, 3)),
            body,
        )
    made = b"\r\n".join([status_line, *heads, b"", body])
    if dice.random() < 0.3:
        return made[: dice.randrange(len(made) + 1)]
    return made + dice.choice((b"", b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 99))


async def test_any_bytes_on_the_wire_are_one_of_the_outcomes_in_time() -> None:
    dice, tally = Random(SEED), Counter[str]()

    async def conduct(peer: Peer) -> None:
        await peer.request()
        await peer.send(made_answer(dice))

    async with raw_server(conduct) as server, provider_at(server.url) as provider:
        for _ in range(examples(150)):
            async with asyncio.timeout(20):
                presented = await provider.present(refresh_of(), window(answer=0.5))
            tally[type(presented.answer).__name__] += 1
            assert isinstance(presented.answer, OUTCOMES)
            assert "defect" not in repr(presented.answer)

    report("the token endpoint's answers", tally)


async def test_any_bytes_of_the_api_say_something_or_nothing_in_time() -> None:
    dice, tally = Random(SEED), Counter[str]()

    async def conduct(peer: Peer) -> None:
        await peer.head()
        await peer.send(made_answer(dice))

    async with raw_server(conduct) as server, provider_at(server.url) as provider:
        for _ in range(examples(80)):
            async with asyncio.timeout(20):
                told = await provider.introspect(AccessToken(Secret("a-fake-access-token")))
            tally[f"live: {told.is_live}"] += 1
            assert isinstance(told, Introspection)

    report("the API's answers", tally)
