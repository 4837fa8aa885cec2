"""Lines to import: what is good, what is bad, and that no line's content is ever repeated."""

from __future__ import annotations

import json

import pytest

from broker.cli.import_lines import BadLine, GoodLine, Line, read_lines

SECRET = "fake-refresh-secret"


def read(text: str) -> list[Line]:
    return read_lines(line.encode() for line in text.splitlines())


def line(**changes: object) -> str:
    return json.dumps({"tenant": "acme", "refresh_token": SECRET, **changes})


def problems(text: str) -> tuple[str, ...]:
    """Returns what is wrong with the one line; nothing when it is good."""
    (found,) = read(text)
    return found.problems if isinstance(found, BadLine) else ()


def test_a_line_needs_a_tenant_and_a_token_only() -> None:
    (found,) = read(line())

    assert isinstance(found, GoodLine)
    assert (found.request.tenant, found.request.refresh_token) == ("acme", SECRET)


def test_everything_that_a_line_says_is_asked_for() -> None:
    (found,) = read(
        line(
            access_token="fake-access",
            expire_time="2026-01-31T12:00:00.5+01:00",
            scopes=["a:read"],
            expected_subject="urn:x",
            replace=True,
        )
    )

    assert isinstance(found, GoodLine)
    assert found.request.expire_time.ToJsonString() == "2026-01-31T11:00:00.500Z"
    assert found.request.replace
    assert list(found.request.scopes) == ["a:read"]


def test_null_is_as_if_it_were_not_there() -> None:
    assert problems(line(expire_time=None, scopes=None, replace=None)) == ()


def test_blank_lines_are_left_out_and_counted() -> None:
    found = read(f"\n{line()}\n  \n{line(tenant='globex', refresh_token='another')}\n")

    assert [each.number for each in found] == [2, 4]


def test_a_byte_order_mark_is_no_part_of_the_line() -> None:
    assert problems("\ufeff" + line()) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SECRET, "JSON object"),
        (f'["{SECRET}"]', "JSON object"),
        ("[" * 100_000, "JSON object"),
        (f'{{"tenant": "acme", "{SECRET}": 1}}', "holds a field that is none of tenant"),
        (f'{{"tenant": "{SECRET}", "tenant": "acme"}}', "holds a field twice"),
        (line(tenant=None), "tenant: must be 1 to 200"),
        (line(tenant=f"{SECRET} !"), "tenant: must be 1 to 200"),
        (line(refresh_token=f"{SECRET}\n"), "refresh_token: must be"),
        (line(refresh_token=7), "refresh_token: must be text"),
        (line(refresh_token=f"{SECRET}\ud800"), "proper Unicode"),
        (line(scopes=SECRET), "scopes: must be a list of texts"),
        (line(scopes=[1]), "scopes: must be a list of texts"),
        (line(scopes=[f"{SECRET} x"]), "scopes[0]: must be a scope-token"),
        (line(replace=1), "replace: must be true or false"),
        (line(access_token=SECRET), "expire_time: must be set with an access token"),
        (line(expire_time="2026-01-31T12:00:00Z"), "expire_time: must be set with an access token"),
        (line(access_token="a", expire_time=SECRET), "expire_time: must be a time"),
        (line(access_token="a", expire_time="2026-01-31"), "expire_time: must be a time"),
        (line(expected_subject="a\nb"), "expected_subject: must be 1 to 200"),
    ],
)
def test_a_bad_line_says_what_to_mend(text: str, expected: str) -> None:
    found = "; ".join(problems(text))

    assert expected in found
    assert SECRET not in found


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert len(problems(line(tenant="", refresh_token="", expected_subject="\n"))) == 3


def test_what_is_no_text_is_a_bad_line() -> None:
    (found,) = read_lines([b'{"tenant": "\xff"}'])

    assert isinstance(found, BadLine)


def test_a_second_line_of_a_tenant_is_bad() -> None:
    first, second = read(f"{line()}\n{line(refresh_token='another')}")

    assert isinstance(first, GoodLine)
    assert isinstance(second, BadLine)
    assert (second.tenant, second.problems) == ("acme", ("tenant: is in line 1 too",))


def test_a_second_line_of_a_token_is_bad() -> None:
    first, second = read(f"{line()}\n{line(tenant='globex')}")

    assert isinstance(first, GoodLine)
    assert isinstance(second, BadLine)
    assert (second.tenant, second.problems) == ("globex", ("refresh_token: is in line 1 too",))


def test_a_line_given_twice_says_all_that_is_twice() -> None:
    _, second = read(f"{line()}\n{line()}")

    assert isinstance(second, BadLine)
    assert second.problems == ("tenant: is in line 1 too", "refresh_token: is in line 1 too")


def test_no_line_shows_its_token() -> None:
    good, bad = read(f"{line()}\n{line(scopes=SECRET)}")

    assert SECRET not in f"{good!r} {bad!r}"
