"""What Pleo's redirect brings: read from an address, and told apart from anybody else's. Pure.

Nothing in here is printed: an address holds a code (law 7).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from broker.config.addresses import is_loopback


class NotOursError(ValueError):
    """An address that is not the answer to this authorization. Says why, and not what it is."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Redirected:
    """How the consent went (RFC 6749 §4.1.2). Has no repr: it holds a code."""

    state: str
    code: str = ""
    error: str = ""
    """Set where there is no code."""

    error_description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loopback:
    """A redirect URI that leads to this machine (RFC 8252 §7.3)."""

    host: str
    port: int
    path: str

    @classmethod
    def read(cls, redirect_uri: str) -> Loopback:
        """Reads a redirect URI.

        Raises:
            ValueError: it is not HTTP on loopback.
        """
        parts = urlsplit(redirect_uri)
        host = parts.hostname or ""
        if parts.scheme != "http" or not is_loopback(host):
            raise ValueError("not HTTP on loopback")
        return cls(host=host, port=parts.port or 80, path=parts.path or "/")


def redirect_uri_of(authorization_uri: str) -> str:
    """Returns where Pleo will send the browser to; empty where the address does not say."""
    return parse_qs(urlsplit(authorization_uri).query).get("redirect_uri", [""])[0]


def read_redirect(address: str, *, state: str) -> Redirected:
    """Reads the address, or its path and query, that the browser was sent to.

    Raises:
        NotOursError: it brings no answer, or the answer to another authorization.
    """
    try:
        query = parse_qs(urlsplit(address.strip()).query, keep_blank_values=True)
    except ValueError:
        raise NotOursError("is no address") from None
    found = {name: values[0] for name, values in query.items()}
    if any(len(values) > 1 for values in query.values()):  # RFC 6749 §3.1
        raise NotOursError("has a parameter twice")
    if not hmac.compare_digest(found.get("state", "").encode(), state.encode()):
        raise NotOursError("does not belong to this authorization: its state is another one")
    # Without a code there is no consent, whatever else there is.
    code, error = found.get("code", ""), found.get("error", "")
    if bool(code) == bool(error):
        raise NotOursError("brings neither a code nor an error, or both")
    return Redirected(
        state=state, code=code, error=error, error_description=found.get("error_description", "")
    )
