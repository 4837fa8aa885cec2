"""A small share of `make lights`: what tells of a fault, and that nothing else does."""

from __future__ import annotations

import asyncio

import pytest

from broker.dev.wheels import WheelMissingError
from chaos.lights import play

pytestmark = pytest.mark.timeout(180)


def test_three_faults_show_their_lights_and_no_others() -> None:
    try:
        told = asyncio.run(play(["Redis down", "a customer gone", "certificate expires soon"]))
    except WheelMissingError as error:
        pytest.skip(f"this module kills its servers, so it needs the wheels: {error}")

    assert [each for each in told if not each.is_good] == []
