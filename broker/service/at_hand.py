"""What the short way of a token needs of the service (`rpc/short_way.py`), with nothing in between.

Bound methods, because each call that only hands on costs as much as the look-up itself.
"""

from __future__ import annotations

from broker.service.disclosures import Disclosures
from broker.service.memory import Memory
from broker.service.usage import Usage


class AtHand:
    """Upholds `broker.rpc.ports.AtHand`."""

    def __init__(self, memory: Memory, usage: Usage, disclosures: Disclosures) -> None:
        """All parts are the process's own, one each."""
        self.copy = memory.at_hand
        self.note_used = usage.note
        self.note_handed_out = disclosures.note
