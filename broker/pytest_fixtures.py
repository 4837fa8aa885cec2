"""The fixture `fake_token_broker`, for services that call the broker (`broker.testing`).

pytest loads this module wherever the package is installed, so it imports nothing before a test asks
for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from broker.testing import FakeTokenBroker


@pytest.fixture
def fake_token_broker() -> Iterator[FakeTokenBroker]:
    """A token broker from memory, on a port of its own; `fake_token_broker.address` is where."""
    from broker.testing import fake_broker_thread  # noqa: PLC0415 - see above

    with fake_broker_thread() as broker:
        yield broker
