"""Messages of OAuth as they go out, against the RFCs' own examples where there are any."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.oauth import authorization_uri, basic_credentials, s256_challenge, token_form
from broker.domain.requests import AuthorizationRequest, ExchangeRequest, RefreshRequest
from broker.domain.secret import (
    AuthorizationCode,
    ClientSecret,
    CodeVerifier,
    RefreshToken,
    Secret,
)

ENDPOINT = "https://auth.example/oauth/authorize"

# RFC 7636, appendix B
RFC_VERIFIER = CodeVerifier(Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"))
RFC_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

ASKED = AuthorizationRequest(
    redirect_uri="https://broker.example/callback?a=b&c=d",
    scopes=("export-items:read", "accounts:read"),
    state="a-fake-state",
    code_verifier=RFC_VERIFIER,
)


def parameters(uri: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(uri).query, keep_blank_values=True)


def test_the_challenge_is_the_one_of_the_rfc() -> None:
    assert s256_challenge(RFC_VERIFIER) == RFC_CHALLENGE


def test_the_address_asks_for_a_code_with_pkce() -> None:
    uri = authorization_uri(ENDPOINT, "a client", ASKED)

    assert uri.startswith(f"{ENDPOINT}?")
    assert parameters(uri) == [
        ("response_type", "code"),
        ("client_id", "a client"),
        ("redirect_uri", "https://broker.example/callback?a=b&c=d"),
        ("scope", "export-items:read accounts:read"),
        ("state", "a-fake-state"),
        ("code_challenge", RFC_CHALLENGE),
        ("code_challenge_method", "S256"),
    ]


def test_the_verifier_is_not_in_the_address() -> None:
    assert RFC_VERIFIER.reveal() not in authorization_uri(ENDPOINT, "a-client", ASKED)


def test_no_scopes_means_no_parameter() -> None:
    asked = AuthorizationRequest(
        redirect_uri="https://broker.example/", scopes=(), state="s", code_verifier=RFC_VERIFIER
    )

    assert "scope" not in dict(parameters(authorization_uri(ENDPOINT, "a-client", asked)))


def test_the_endpoints_own_query_stays_and_its_fragment_goes() -> None:
    uri = authorization_uri(f"{ENDPOINT}?brand=a%20b&x=#top", "a-client", ASKED)

    assert uri.startswith(f"{ENDPOINT}?brand=a%20b&x=&response_type=code&")
    assert urlsplit(uri).fragment == ""


def test_further_parameters_come_last() -> None:
    uri = authorization_uri(ENDPOINT, "a-client", ASKED, [("prompt", "login"), ("hint", "å")])

    assert parameters(uri)[-2:] == [("prompt", "login"), ("hint", "å")]


def test_a_further_parameter_replaces_none_of_the_requests() -> None:
    uri = authorization_uri(ENDPOINT, "a-client", ASKED, [("state", "another"), ("x", "y")])

    assert [value for name, value in parameters(uri) if name == "state"] == ["a-fake-state"]
    assert parameters(uri)[-1] == ("x", "y")


def test_an_exchange_presents_the_code_with_its_verifier() -> None:
    request = ExchangeRequest(
        code=AuthorizationCode(Secret("a-fake-code")),
        redirect_uri="https://broker.example/callback",
        code_verifier=CodeVerifier(Secret("a-fake-verifier")),
    )

    assert token_form(request) == (
        ("grant_type", "authorization_code"),
        ("code", "a-fake-code"),
        ("redirect_uri", "https://broker.example/callback"),
        ("code_verifier", "a-fake-verifier"),
    )


def test_a_refresh_presents_the_token_alone() -> None:
    request = RefreshRequest(refresh_token=RefreshToken(Secret("a-fake-token+/~=")))

    assert token_form(request) == (
        ("grant_type", "refresh_token"),
        ("refresh_token", "a-fake-token+/~="),
    )


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_token_survives_its_form_letter_for_letter(token: str) -> None:
    form = token_form(RefreshRequest(refresh_token=RefreshToken(Secret(token))))

    assert dict(parse_qsl(urlencode(form)))["refresh_token"] == token


def test_credentials_are_those_of_the_rfc() -> None:
    # RFC 6749 §2.3.1
    secret = ClientSecret(Secret("7Fjfp0ZBr1KtDRbnfVdmIw"))

    assert basic_credentials("s6BhdRkqt3", secret) == (
        "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3"
    )


@pytest.mark.parametrize("secret", ["a:b", "a b", "100%", "a+b", "påss", "a&b=c"])
def test_credentials_are_form_encoded_before_base64(secret: str) -> None:
    credentials = basic_credentials("a:client", ClientSecret(Secret(secret)))

    name, _, encoded = base64.b64decode(credentials.removeprefix("Basic ")).decode().partition(":")
    assert unquote_plus(name) == "a:client"
    assert unquote_plus(encoded) == secret
