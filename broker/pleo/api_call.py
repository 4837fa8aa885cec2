"""Calls of Pleo's API with a bearer token: the two that the broker makes for itself."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

import httpx

from broker.domain.errors import ProviderUnavailable, RefreshOutcomeUnknown
from broker.domain.fields import check_expected_subject
from broker.domain.json_object import read_object, read_text, read_words
from broker.domain.secret import AccessToken
from broker.pleo.transport import HEADERS, TRANSPORT_ERRORS, Body, Progress, lost_code
from broker.ports import Introspection

PATIENCE_SECONDS: Final = 5.0
"""For one call, everything included: as the port promises for introspection."""

DEFECT: Final = "defect"
"""The fault of a call that failed as nobody foresaw; the log has its place."""

UNSENDABLE: Final = "odd_access_token"
"""The fault of a call whose token fits into no header: nothing was sent."""

_GATEWAYS: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})
"""What a gateway answers in place of a server that may be at work still (RFC 9110 §15.6)."""

_LOG: Final = logging.getLogger(__name__)

UNKNOWN: Final = Introspection(is_live=None)

_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAnswer:
    """What the API said."""

    status: int | None
    """None: nothing."""

    body: bytes = field(default=b"", repr=False)
    fault: str | None = None
    """Why there is no answer, or no whole one."""

    @property
    def code(self) -> str:
        """A short name for it."""
        return self.fault or f"http_{self.status}"


async def call_api(
    transport: httpx.AsyncBaseTransport,
    method: Literal["GET", "DELETE"],
    address: httpx.URL,
    access_token: AccessToken,
    *,
    patience: float = PATIENCE_SECONDS,
) -> ApiAnswer:
    """Calls once, for at most `patience` in seconds. Safe to cancel.

    Never raises for what Pleo or the network does.
    """
    bearer = access_token.reveal()
    # h11 would refuse it as well, with an error that quotes the token (law 7).
    if not _HEADER_SAFE.fullmatch(bearer):
        return ApiAnswer(status=None, fault=UNSENDABLE)
    headers = {**HEADERS, "Authorization": f"Bearer {bearer}"}
    status, body, progress = None, Body(), Progress()
    traced = {"trace": progress.note}
    request = httpx.Request(method, address, headers=headers, extensions=traced)
    try:
        async with asyncio.timeout(patience):
            response = await transport.handle_async_request(request)
            status = response.status_code
            await body.read(response)
    except TRANSPORT_ERRORS as error:
        fault = lost_code(error, has_head=status is not None)
        return ApiAnswer(status=status, body=bytes(body), fault=fault)
    except Exception:  # noqa: BLE001 - see below
        # Whoever asks may hold a pair that is not stored yet (law 3): this must not end it.
        _LOG.exception("a call of the API failed as nobody foresaw")
        return ApiAnswer(status=status, body=bytes(body), fault=DEFECT)
    finally:
        await progress.abandon()
    return ApiAnswer(status=status, body=bytes(body))


def read_introspection(answer: ApiAnswer) -> Introspection:
    """Says what an answer means (pleo.md, "Who the tenant is").

    200 with an object in `data`: the token lives. 401: it does not. Anything else says nothing.
    """
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return Introspection(is_live=False)
    fields = read_object(answer.body) if answer.status == HTTPStatus.OK else None
    data = None if fields is None else fields.get("data")
    if not isinstance(data, dict):
        return UNKNOWN
    subject = read_text(data, "subjectURN")
    if subject is not None and check_expected_subject(subject) is not None:
        subject = None  # no company's name: what cannot be stored must not keep a pair from it
    return Introspection(is_live=True, subject=subject, scopes=read_words(data, "scope"))


def deletion_error(answer: ApiAnswer) -> ProviderUnavailable | RefreshOutcomeUnknown | None:
    """Says what an answer to a deletion means; None: the installation is gone.

    404: it was gone already. The head says it all: a body that was cut short does not matter. 401:
    the token is dead, nothing is known. Without an answer of its own Pleo may delete it yet.
    """
    status = answer.status
    if status in {*range(200, 300), HTTPStatus.NOT_FOUND}:
        return None
    code, what = {"code": answer.code}, "Pleo has not confirmed that the installation is deleted"
    is_lost = status is None and answer.fault != UNSENDABLE
    if is_lost or status in _GATEWAYS:
        return RefreshOutcomeUnknown(f"{what}, and may do it yet", metadata=code)
    return ProviderUnavailable(what, metadata=code)
