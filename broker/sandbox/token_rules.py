"""What a refresh token, a code, or a question about a token is worth.

Upholds pleo.md, "Lifetimes and rotation": rotation with the old pair dead at once, a superseded
refresh token ends its grant (the mode can soften that), an expired one too; codes as RFC 6749
§4.1.2 and RFC 7636 §4.6 have them. Each rule raises what is answered when it is broken.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from broker.sandbox.consents import Code
from broker.sandbox.grants import Grant, Located
from broker.sandbox.oauth import FormRequest, RefusedError, is_verified, required
from broker.sandbox.realm import Realm
from broker.sandbox.settings import Client

# One text for all of them: Pleo gives no way to tell which (pleo.md, "Failures").
_GONE: Final = "it is unknown, expired, revoked, or was used before"


class ReusedError(RefusedError):
    """A credential was shown again, and a living grant ended of it."""


def refresh(realm: Realm, request: FormRequest, *, client: Client, now: datetime) -> Grant:
    """Rotate (RFC 6749 §6); the grant with its new pair.

    Raises:
        RefusedError: `invalid_grant`, or `invalid_request` without a refresh token.
        ReusedError: the same, and the grant ended of it.
    """
    located = realm.ledger.find_refresh_token(required(request.form, "refresh_token"))
    if located is None or located.grant.client_id != client.client_id:
        raise _refused_token()
    match located.standing(now):
        case "current":
            pass
        case "superseded":
            _let_pass(realm, located, now)
        case "dead":
            # "All active refresh tokens of that authorisation are invalidated" (pleo.md).
            located.grant.end("an expired refresh token was presented")
            raise _refused_token()
        case "unknown":
            raise RuntimeError("a token that was found is never unknown")
        case never:
            assert_never(never)
    realm.issue(located.grant, now=now, parent=located.generation)
    return located.grant


def _refused_token() -> RefusedError:
    return RefusedError("invalid_grant", f"the refresh token is refused: {_GONE}")


def _let_pass(realm: Realm, located: Located, now: datetime) -> None:
    """Let a superseded refresh token pass, or refuse it, as the mode says."""
    if realm.settings.mode == "grace" and located.is_previous(now):
        return
    end_of_reuse(realm, located)
    raise _refused_token()


def end_of_reuse(realm: Realm, located: Located) -> None:
    """End the grant of a superseded refresh token, unless the mode is lenient.

    Raises:
        ReusedError: it was alive until now.
    """
    if realm.settings.mode == "lenient":
        return
    if located.grant.end("a superseded refresh token was presented"):
        raise ReusedError("invalid_grant", f"the refresh token is refused: {_GONE}")


def exchange(realm: Realm, request: FormRequest, *, client: Client, now: datetime) -> Grant:
    """Redeem a code (RFC 6749 §4.1.3); the grant that came of it.

    Raises:
        RefusedError: `invalid_grant`, or `invalid_request` when a parameter is missing.
        ReusedError: the code was redeemed before, and the grant made from it ended.
    """
    text, redirect_uri = required(request.form, "code"), required(request.form, "redirect_uri")
    verifier = realm.mint.keep("code_verifier", required(request.form, "code_verifier"))
    code = realm.consents.find_code(text)
    if code is None or code.request.client.client_id != client.client_id:
        raise _refused_code()
    _spend(code, now)
    if redirect_uri != code.request.redirect_uri:
        raise RefusedError("invalid_grant", "redirect_uri is not that of the request")
    if not is_verified(code_verifier=verifier, code_challenge=code.request.code_challenge):
        raise RefusedError("invalid_grant", "code_verifier does not match the challenge")
    return _grant_for(realm, code, now)


def _refused_code() -> RefusedError:
    return RefusedError("invalid_grant", f"the code is refused: {_GONE}")


def _spend(code: Code, now: datetime) -> None:
    """Spend a code that its own client shows, whatever comes of it (RFC 6749 §4.1.2)."""
    standing, code.is_spent = code.standing(now), True
    if code.grant is not None and code.grant.end("its code was presented again"):
        raise ReusedError("invalid_grant", f"the code is refused: {_GONE}")
    if standing != "current":
        raise _refused_code()


def _grant_for(realm: Realm, code: Code, now: datetime) -> Grant:
    """Make the grant, or go on with an earlier one, as the setting about second consents says."""
    client_id, scopes = code.request.client.client_id, code.request.scopes
    earlier = realm.ledger.living(client_id=client_id, company=code.company)
    if realm.settings.second_consent == "ends":
        realm.disconnect(company=code.company, client_id=client_id, reason="consented again")
    if realm.settings.second_consent == "replaces" and earlier:
        grant = earlier[-1]
        grant.scopes = scopes
    else:
        grant = realm.ledger.open(client_id=client_id, company=code.company, scopes=scopes)
    code.grant = grant
    realm.issue(grant, now=now, parent=None)
    return grant


def introspect(
    realm: Realm, request: FormRequest, *, client: Client, now: datetime
) -> dict[str, object]:
    """Tell about one token of this client (RFC 7662 §2.2).

    Raises:
        RefusedError: `invalid_request` without a token.
        ReusedError: a superseded refresh token counts as shown again here too: "never introspect a
            stale refresh token" (pleo.md, "Who the tenant is").
    """
    shown = required(request.form, "token")
    located = realm.ledger.find_access_token(shown)
    is_active = located is not None and located.is_accepted(now)
    if located is None:
        located = realm.ledger.find_refresh_token(shown)
        is_active = located is not None and located.standing(now) == "current"
        if located is not None and located.standing(now) == "superseded":
            end_of_reuse(realm, located)
    if located is None or not is_active or located.grant.client_id != client.client_id:
        return {"active": False}
    return {
        "active": True,
        "client_id": client.client_id,
        "scope": " ".join(located.grant.scopes),
        "urn:pleo:params:oauth:subject_urn": located.grant.company,
    }
