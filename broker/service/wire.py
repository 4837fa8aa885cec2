"""Presenting to the provider, within the times of an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from broker.domain.answers import Rotated
from broker.domain.facts import AttemptAnswered, AttemptOverdue, AttemptSending
from broker.domain.grant import Grant, TokenPair
from broker.domain.requests import TokenRequest
from broker.domain.secret import RefreshToken
from broker.domain.times import SEND_BUDGET, AttemptTimes
from broker.ports import Observer, Presentation, Provider, WireWindow
from broker.service.endings import error_of, outcome_of
from broker.service.holdings import Holdings
from broker.service.settle import Claimed

_NO_TIME: Final = timedelta(0)


class _Sending:
    """A request on the wire, and the moment at which it is overdue."""

    def __init__(
        self, overdue: asyncio.Future[None] | None, on_overdue: Callable[[], None]
    ) -> None:
        self._overdue = overdue
        self._on_overdue = on_overdue
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, http_timeout: timedelta) -> None:
        seconds = http_timeout.total_seconds()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tell)

    def _tell(self) -> None:
        if self._overdue is not None and not self._overdue.done():
            self._overdue.set_result(None)
        self._on_overdue()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Wire:
    """Presents to the provider within an attempt's times."""

    def __init__(
        self, provider: Provider, times: AttemptTimes, holdings: Holdings, observer: Observer
    ) -> None:
        """`holdings`: what is on the wire holds up shutdown."""
        self._provider = provider
        self._times = times
        self._holdings = holdings
        self._observer = observer

    async def present(
        self,
        claimed: Claimed,
        request: TokenRequest,
        *,
        overdue: asyncio.Future[None] | None = None,
    ) -> Presentation:
        """Sends one request and waits for its answer until shortly before the deadline.

        `overdue` is done when the answer takes longer than a whole request may, so that callers
        need not wait for as long as the wire is listened to.
        """
        with self._holdings.hold(), self._clock(claimed, overdue) as sending:
            window = self._window(claimed, sending)
            presentation = await self._provider.present(request, window)
        self._report(claimed, presentation)
        return presentation

    def _window(self, claimed: Claimed, sending: _Sending) -> WireWindow:
        span, http_timeout = self._times.answer_within, self._times.http_timeout

        def on_sending() -> None:
            sending.begin(http_timeout)
            attempt = claimed.attempt
            tenant = claimed.reading.grant.tenant
            self._observer.observe(AttemptSending(tenant=tenant, number=attempt.number))

        return WireWindow(
            send_by=claimed.started_at + SEND_BUDGET.total_seconds(),
            answer_by=claimed.started_at + span.total_seconds(),
            on_sending=on_sending,
        )

    @contextmanager
    def _clock(self, claimed: Claimed, overdue: asyncio.Future[None] | None) -> Iterator[_Sending]:
        def on_overdue() -> None:
            self._observer.observe(
                AttemptOverdue(
                    tenant=claimed.reading.grant.tenant,
                    kind=claimed.attempt.kind,
                    number=claimed.attempt.number,
                    http_timeout=self._times.http_timeout,
                )
            )

        sending = _Sending(overdue, on_overdue)
        try:
            yield sending
        finally:
            sending.end()

    def _report(self, claimed: Claimed, presentation: Presentation) -> None:
        answer, sent_at = presentation.answer, presentation.sent_at
        now = asyncio.get_running_loop().time()
        self._observer.observe(
            AttemptAnswered(
                tenant=claimed.reading.grant.tenant,
                kind=claimed.attempt.kind,
                number=claimed.attempt.number,
                outcome=outcome_of(answer),
                error=error_of(answer),
                http_status=presentation.http_status,
                duration=_NO_TIME if sent_at is None else timedelta(seconds=now - sent_at),
                flags=answer.flags if isinstance(answer, Rotated) else (),
            )
        )


def presented_token(grant: Grant) -> RefreshToken:
    """Returns the refresh token of a claimed row: what is presented is what the claim returned.

    Raises:
        ValueError: there is none; a defect, since no claim is allowed without one.
    """
    if not isinstance(grant.pair, TokenPair) or grant.pair.refresh_token is None:
        raise ValueError(grant.state)
    return grant.pair.refresh_token
