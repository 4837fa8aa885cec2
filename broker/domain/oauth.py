"""Builds the messages of OAuth 2.0 as they go out: addresses, forms, credentials.

Pure. What is returned by `token_form` and `basic_credentials` holds secrets in clear: it is for the
wire and for nothing else (law 7).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import assert_never
from urllib.parse import quote_plus, urlencode, urlsplit, urlunsplit

from broker.domain.requests import (
    AuthorizationRequest,
    ExchangeRequest,
    RefreshRequest,
    TokenRequest,
)
from broker.domain.secret import ClientSecret, CodeVerifier


def s256_challenge(code_verifier: CodeVerifier) -> str:
    """Returns the code challenge, from which nobody learns the verifier (RFC 7636 §4.2)."""
    digest = hashlib.sha256(code_verifier.reveal().encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_uri(
    endpoint: str,
    client_id: str,
    request: AuthorizationRequest,
    extra: Sequence[tuple[str, str]] = (),
) -> str:
    """Returns the address to send the browser to (RFC 6749 §4.1.1, RFC 7636 §4.3).

    A query of the endpoint's own stays (RFC 6749 §3.1). `extra` comes last and never replaces a
    parameter of the request: no parameter may be there twice, and these are the ones we rely on.
    """
    ours = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": request.redirect_uri,
        "scope": " ".join(request.scopes),
        "state": request.state,
        "code_challenge": s256_challenge(request.code_verifier),
        "code_challenge_method": "S256",
    }
    pairs = [(name, value) for name, value in ours.items() if value]
    pairs += [(name, value) for name, value in extra if name not in ours]
    parts = urlsplit(endpoint)
    query = "&".join(filter(None, (parts.query, urlencode(pairs))))
    return urlunsplit(parts._replace(query=query, fragment=""))


def token_form(request: TokenRequest) -> tuple[tuple[str, str], ...]:
    """Returns the parameters of a token request, without the client's (RFC 6749 §4.1.3, §6)."""
    match request:
        case ExchangeRequest():
            return (
                ("grant_type", "authorization_code"),
                ("code", request.code.reveal()),
                ("redirect_uri", request.redirect_uri),
                ("code_verifier", request.code_verifier.reveal()),
            )
        case RefreshRequest():
            return (
                ("grant_type", "refresh_token"),
                ("refresh_token", request.refresh_token.reveal()),
            )
        case never:
            assert_never(never)


def basic_credentials(client_id: str, secret: ClientSecret) -> str:
    """Returns the value of `Authorization`: both form-encoded, then Base64 (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
    return f"Basic {base64.b64encode(pair.encode('ascii')).decode()}"
