"""Redirects: which is the answer to our authorization, and where it is waited for."""

from __future__ import annotations

import pytest

from broker.cli.redirect import Loopback, NotOursError, read_redirect, redirect_uri_of

STATE = "fake-state"
CALLBACK = "http://localhost:8400/callback"


def test_a_code_with_our_state_is_the_answer() -> None:
    redirected = read_redirect(f" {CALLBACK}?code=fake-code&state={STATE}&iss=x\n", state=STATE)

    assert (redirected.code, redirected.error) == ("fake-code", "")


def test_a_path_and_query_are_enough() -> None:
    assert read_redirect(f"/callback?state={STATE}&code=fake-code", state=STATE).code == "fake-code"


def test_an_error_with_our_state_is_an_answer_too() -> None:
    address = f"{CALLBACK}?error=access_denied&error_description=no+way&state={STATE}"

    redirected = read_redirect(address, state=STATE)

    assert (redirected.error, redirected.error_description) == ("access_denied", "no way")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code=fake-code",
        "code=fake-code&state=",
        "code=fake-code&state=another",
        "code=fake-code&state=%F0%9F%92%A3",
        f"state={STATE}",
        f"code=&state={STATE}",
        f"code=fake-code&error=e&state={STATE}",
        f"code=fake-code&code=other&state={STATE}",
        f"code=fake-code&state={STATE}&state=other",
    ],
)
def test_anything_else_is_not_our_answer(query: str) -> None:
    with pytest.raises(NotOursError) as caught:
        read_redirect(f"{CALLBACK}?{query}", state=STATE)

    assert "fake" not in str(caught.value)


def test_what_is_no_address_is_not_our_answer() -> None:
    with pytest.raises(NotOursError):
        read_redirect("http://[", state=STATE)


def test_a_redirect_holds_its_code_back() -> None:
    redirected = read_redirect(f"/?state={STATE}&code=fake-code", state=STATE)

    assert "fake-code" not in repr(redirected)


@pytest.mark.parametrize(
    ("redirect_uri", "expected"),
    [
        (CALLBACK, ("localhost", 8400, "/callback")),
        ("http://127.0.0.1", ("127.0.0.1", 80, "/")),
        ("http://[::1]:1/a/b", ("::1", 1, "/a/b")),
    ],
)
def test_loopback_is_read_as_it_stands(redirect_uri: str, expected: tuple[str, int, str]) -> None:
    address = Loopback.read(redirect_uri)

    assert (address.host, address.port, address.path) == expected


@pytest.mark.parametrize(
    "redirect_uri",
    ["", "https://localhost/x", "http://app.example/x", "http://localhost:99999/", "x://[::1]"],
)
def test_other_places_cannot_be_listened_on(redirect_uri: str) -> None:
    with pytest.raises(ValueError, match=r"loopback|[Pp]ort"):
        Loopback.read(redirect_uri)


def test_the_redirect_uri_is_read_from_the_authorization_uri() -> None:
    uri = "https://pleo.example/authorize?redirect_uri=http%3A%2F%2Flocalhost%3A8400%2Fcallback&x=y"

    assert redirect_uri_of(uri) == CALLBACK
    assert redirect_uri_of("https://pleo.example/authorize") == ""
