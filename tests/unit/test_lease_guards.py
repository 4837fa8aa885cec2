"""The guards around redis-py: the pause after a failure, cancellations, a task beside a block."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest

from broker.lease.announcements import read_moved
from broker.lease.beside import running_beside
from broker.lease.circuit import Circuit
from broker.lease.failure import RedisUnreachable, heeding, name_failure
from broker.ports import GrantMoved

NEVER_AGAIN = timedelta(hours=1)
AT_ONCE = timedelta(0)


def fail(circuit: Circuit, *, has_answered: bool = False) -> None:
    with pytest.raises(RedisUnreachable, match="down"), circuit.asking():
        raise RedisUnreachable("down", has_answered=has_answered)


async def test_nobody_asks_during_the_pause_after_a_failure() -> None:
    circuit = Circuit(NEVER_AGAIN)
    fail(circuit)

    with pytest.raises(RedisUnreachable, match="paused"), circuit.asking():
        pass


async def test_an_answer_that_is_an_error_begins_no_pause() -> None:
    circuit = Circuit(NEVER_AGAIN)
    fail(circuit, has_answered=True)

    with circuit.asking() as is_probe:
        assert not is_probe


async def test_one_asks_after_the_pause_and_the_others_wait_for_what_it_learns() -> None:
    circuit = Circuit(AT_ONCE)
    fail(circuit)

    with circuit.asking() as is_probe:
        assert is_probe
        with pytest.raises(RedisUnreachable, match="paused"), circuit.asking():
            pass
    with circuit.asking() as is_probe:
        assert not is_probe


async def test_a_probe_that_fails_begins_another_pause_and_another_probe() -> None:
    circuit = Circuit(AT_ONCE)
    fail(circuit)
    fail(circuit)

    with circuit.asking() as is_probe:
        assert is_probe


async def test_a_probe_that_was_cancelled_leaves_its_turn_to_the_next() -> None:
    circuit = Circuit(AT_ONCE)
    fail(circuit)
    with pytest.raises(asyncio.CancelledError), circuit.asking():
        raise asyncio.CancelledError

    with circuit.asking() as is_probe:
        assert is_probe


async def test_who_asked_before_a_failure_does_not_end_the_pause() -> None:
    circuit = Circuit(NEVER_AGAIN)
    with circuit.asking():
        fail(circuit)

    with pytest.raises(RedisUnreachable, match="paused"), circuit.asking():
        pass


async def swallow(*, then_fail: bool) -> str:
    """Does what `wait_for` of Python 3.11 does with a cancellation that comes too late."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if then_fail:
            raise ValueError("something else") from None
    return "done"


@pytest.mark.parametrize("then_fail", [False, True])
async def test_a_swallowed_cancellation_is_raised_after_all(*, then_fail: bool) -> None:
    task = asyncio.ensure_future(heeding(swallow(then_fail=then_fail)))
    await anyio.wait_all_tasks_blocked()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_swallowed_timeout_is_a_timeout_after_all() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await heeding(swallow(then_fail=False))


async def test_the_task_beside_a_block_ends_with_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running_beside(work(), name="work"):
        await anyio.wait_all_tasks_blocked()

    assert ended.is_set()


async def test_a_task_that_ends_first_does_not_end_the_block() -> None:
    async with running_beside(asyncio.sleep(0), name="work"):
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
async def test_what_a_block_raises_is_not_wrapped(kind: type[BaseException]) -> None:
    failure = kind("own")

    async def block() -> None:
        async with running_beside(asyncio.sleep(3600), name="work"):
            raise failure

    with pytest.raises(kind) as caught:
        await block()
    assert caught.value is failure


def test_a_failure_is_named_without_its_text() -> None:
    failure = RuntimeError("hunter2")
    failure.__cause__ = OSError("hunter2")

    assert name_failure(failure) == "RuntimeError from OSError"


def test_the_version_of_an_announcement_is_read_where_it_is_one() -> None:
    told = b'{"tenant": "acme", "generation": 7, "version": %s}'

    assert [read_moved(told % version) for version in (b"12", b'"x"')] == [
        GrantMoved(tenant="acme", generation=7, version=12),
        GrantMoved(tenant="acme", generation=7),
    ]


def test_an_announcement_is_read() -> None:
    assert read_moved(b'{"tenant": "acme", "generation": 7, "more": 1}') == GrantMoved(
        tenant="acme", generation=7
    )


@pytest.mark.parametrize(
    "announced", [b"", b"{", b"\xff", b"[]", b'{"tenant": 1, "generation": 7}', b"[" * 100_000]
)
def test_what_is_no_announcement_is_none(announced: bytes) -> None:
    assert read_moved(announced) is None
