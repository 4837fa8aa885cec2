"""Follows one presentation from its arrival to its end, into the record and the waiting room.

Decides nothing; it is what makes the record say also what the client never saw.
"""

from __future__ import annotations

import json

from broker.sandbox.authorization_server import Verdict
from broker.sandbox.conduct import ConductedResponse, Deliver, Ending
from broker.sandbox.faults import Step, name_of
from broker.sandbox.oauth import Answer
from broker.sandbox.record import Presentation
from broker.sandbox.sandbox import Sandbox
from broker.sandbox.wire import Wire


class Follower:
    """One presentation on its way."""

    def __init__(
        self, sandbox: Sandbox, entry: Presentation, *, wire: Wire, steps: tuple[Step, ...]
    ) -> None:
        """Note the arrival of `entry` on `wire`, and which faults it meets."""
        self._clock = sandbox.now
        self._room = sandbox.room
        self._entry = entry
        self._wire = wire
        # Waiting tests count what shows a credential at the token endpoint, and nothing else.
        self._is_counted = entry.via == "token" and entry.presented.kind != "nothing"
        entry.faults = tuple(name_of(step) for step in steps)
        if self._is_counted:
            self._room.arrived()
        wire.watch(self._hung_up)

    def judged(self, verdict: Verdict) -> Answer:
        """Note what the server made of it, and pass the answer on."""
        self._entry.outcome = verdict.outcome
        self._entry.judged = verdict.presented
        self._entry.has_killed = verdict.has_killed
        return verdict.answer

    def ending(self, ending: Ending) -> ConductedResponse:
        """Note what goes back, and make it go."""
        if isinstance(ending, Deliver):
            self._entry.status = ending.answer.status
            self._entry.error = _error_of(ending.answer)
        return ConductedResponse(ending, wire=self._wire, on_sent=self._sent)

    def _hung_up(self) -> None:
        self._entry.has_hung_up = True
        if self._is_counted:
            self._room.hung_up()

    def _sent(self, is_delivered: bool) -> None:  # noqa: FBT001 - a callback
        self._entry.is_delivered = is_delivered
        self._entry.finished_at = self._clock()
        if self._is_counted:
            self._room.finished()


def _error_of(answer: Answer) -> str | None:
    try:
        fields = json.loads(answer.body)
    except ValueError:  # rubbish, or a gateway's page
        return None
    error = fields.get("error") if isinstance(fields, dict) else None
    return error if isinstance(error, str) else None
