"""Requests and answers of OAuth as they look on the wire: read strictly, without a state behind.

Upholds RFC 6749 §2.3.1 (client authentication), §3.2 (a form, each parameter once, none in the
query), §5.1 and §5.2 (answers), RFC 7636 §4.1 and §4.6 (PKCE). Refuses to know who exists.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote_plus

# More parameters than any OAuth message has; parse_qsl asks for a bound against floods.
_MOST_PARAMETERS: Final = 50
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
# RFC 6749 §5.1: answers with tokens are stored by nobody.
_UNSTORED: Final = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


class RefusedError(Exception):
    """A request that is answered with an OAuth error (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        """Refuse with the `error` code, words for a person, and the HTTP status."""
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back: status, body, headers."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRequest:
    """A form-encoded request to the token endpoint or beside it."""

    form: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(repr=False)
    problem: str | None
    """Why the form is no form; what could be read of it is there all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials:
    """What a client says that it is."""

    client_id: str
    client_secret: str = field(repr=False)
    method: Literal["basic", "body"]


def json_answer(
    status: int, fields: Mapping[str, object], *, headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """Build an answer with a JSON object that no cache keeps."""
    return Answer(status=status, body=json.dumps(fields).encode(), headers=_UNSTORED + headers)


def refusal(refused: RefusedError) -> Answer:
    """Build the error answer of RFC 6749 §5.2."""
    is_unknown = refused.status == HTTPStatus.UNAUTHORIZED
    challenge = (("WWW-Authenticate", 'Basic realm="sandbox"'),) if is_unknown else ()
    fields = {"error": refused.error, "error_description": refused.description}
    return json_answer(refused.status, fields, headers=challenge)


def read_form_request(
    body: bytes, *, content_type: str, authorization: str | None, query: str
) -> FormRequest:
    """Read a POST. What is wrong with it is noted, not raised: its tokens were presented anyway."""
    form, problem = read_parameters(body.decode(errors="replace"))
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != "application/x-www-form-urlencoded":
        problem = "the body must be application/x-www-form-urlencoded"
    elif query:
        problem = "parameters belong into the body, never into the query"
    return FormRequest(form=form, authorization=authorization, problem=problem)


def read_parameters(text: str) -> tuple[dict[str, str], str | None]:
    """Read form-encoded parameters, each once, and say what is wrong with them if anything is."""
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except ValueError:  # UnicodeDecodeError is one
        return {}, "its parameters are unreadable"
    form: dict[str, str] = {}
    for name, value in pairs:
        form.setdefault(name, value)
    problem = "a parameter is repeated" if len(form) != len(pairs) else None
    # RFC 6749 §3.2: a parameter without a value is one that was left out.
    return {name: value for name, value in form.items() if value}, problem


def required(form: Mapping[str, str], name: str) -> str:
    """Return a parameter's value.

    Raises:
        RefusedError: `invalid_request`, it is missing.
    """
    value = form.get(name)
    if value is None:
        raise RefusedError("invalid_request", f"{name} is missing")
    return value


def read_client_credentials(request: FormRequest) -> ClientCredentials:
    """Find the client's credentials, in the header or in the body and never in both.

    Raises:
        RefusedError: `invalid_request` for both ways at once (RFC 6749 §2.3); `invalid_client` for
            neither, or for a header that cannot be read.
    """
    client_id, secret = request.form.get("client_id"), request.form.get("client_secret")
    if request.authorization is None:
        if client_id is None or secret is None:
            raise RefusedError(
                "invalid_client", "the client did not authenticate", status=HTTPStatus.UNAUTHORIZED
            )
        return ClientCredentials(client_id=client_id, client_secret=secret, method="body")
    if secret is not None:
        raise RefusedError("invalid_request", "the client authenticated in two ways at once")
    credentials = _read_basic(request.authorization)
    if client_id not in (None, credentials.client_id):
        raise RefusedError("invalid_request", "client_id is not the one that authenticated")
    return credentials


def _read_basic(authorization: str) -> ClientCredentials:
    scheme, _, encoded = authorization.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        decoded = ""
    client_id, colon, secret = decoded.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise RefusedError(
            "invalid_client",
            "the Authorization header is unreadable",
            status=HTTPStatus.UNAUTHORIZED,
        )
    # RFC 6749 §2.3.1: both parts were form-encoded before Base64.
    return ClientCredentials(
        client_id=unquote_plus(client_id), client_secret=unquote_plus(secret), method="basic"
    )


def is_verified(*, code_verifier: str, code_challenge: str) -> bool:
    """Tell whether the verifier is well-formed and S256 makes the challenge of it."""
    digest = hashlib.sha256(code_verifier.encode()).digest()
    derived = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return _VERIFIER.fullmatch(code_verifier) is not None and derived == code_challenge
