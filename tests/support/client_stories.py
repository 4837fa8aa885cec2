"""A client of fake calls, on the virtual loop's clock."""

from __future__ import annotations

import asyncio

from broker.client import TokenClient
from support.fake_calls import FakeCalls


def client_of(calls: FakeCalls, *, watch: bool = False) -> TokenClient:
    """Returns a client that is to be entered."""
    clock = asyncio.get_running_loop().time
    return TokenClient("localhost:1", calls=calls, watch=watch, clock=clock)
