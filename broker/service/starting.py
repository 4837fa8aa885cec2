"""StartAuthorization: PKCE and a single-use state, kept here; the browser carries the latter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from broker.domain.authorization import Authorization
from broker.domain.errors import FieldViolation, InvalidRequest
from broker.domain.hashing import sha256
from broker.domain.requests import AuthorizationRequest
from broker.domain.secret import CodeVerifier, Secret
from broker.ports import Chance, ConsentStore, Provider
from broker.service.messages import StartAuthorization, StartedAuthorization
from broker.service.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is registered with Pleo, and how long a consent may take."""

    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...]
    time_to_live: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """Begins consents."""

    consents: ConsentStore
    rows: Rows
    provider: Provider
    registration: Registration
    chance: Chance

    async def start(self, request: StartAuthorization) -> StartedAuthorization:
        """Remembers a pending consent and returns where to send the browser.

        Raises:
            InvalidRequest: the redirect URI is not registered.
            StoreUnavailable, KeyUnavailable: nothing was begun.
        """
        asked = AuthorizationRequest(
            redirect_uri=self._redirect_uri(request),
            scopes=self.registration.scopes if request.scopes is None else request.scopes,
            state=self.chance.urlsafe_secret(),
            code_verifier=CodeVerifier(Secret(self.chance.urlsafe_secret())),
        )
        now = (await self.rows.read(request.tenant)).now
        authorization = Authorization(
            state_hash=sha256(asked.state),
            tenant=request.tenant,
            session_binding_hash=sha256(request.session_binding),
            caller=request.caller,
            code_verifier=asked.code_verifier,
            redirect_uri=asked.redirect_uri,
            scopes=asked.scopes,
            expected_subject=request.expected_subject,
            allow_subject_change=request.allow_subject_change,
            created_at=now,
            expires_at=now + self.registration.time_to_live,
        )
        await self.consents.start(authorization)
        return StartedAuthorization(
            authorization_uri=self.provider.authorization_uri(asked),
            state=asked.state,
            expires_at=authorization.expires_at,
        )

    def _redirect_uri(self, request: StartAuthorization) -> str:
        registered = self.registration.redirect_uris
        wanted = request.redirect_uri or (registered[0] if registered else None)
        if wanted is not None and wanted in registered:
            return wanted
        what = "must be one of the registered ones, exactly (BROKER_PLEO_REDIRECT_URIS)"
        violation = FieldViolation(field="redirect_uri", description=what)
        raise InvalidRequest([violation], tenant=request.tenant)
