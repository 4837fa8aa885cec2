"""When Redis counts as unreachable: twice in a row, and not for a moment of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.exceptions import NoPermissionError

from broker.lease.failure import RedisUnreachable
from broker.ops.redis_check import redis_result

AWAY = RedisUnreachable("TimeoutError")
REFUSING = RedisUnreachable("ResponseError", has_answered=True)
SILENT_ON_ITSELF = RedisUnreachable("NoPermissionError", has_answered=True)
SILENT_ON_ITSELF.__cause__ = NoPermissionError()  # as the client raises it: "from" what Redis said
WELL = {"maxmemory_policy": "noeviction"}
EVICTING = {"maxmemory_policy": "allkeys-lru"}


class Answers:
    """A client of Redis that is answered in this way, one question after the other."""

    def __init__(self, *answers: dict[str, str] | RedisUnreachable) -> None:
        self._answers: Iterator[dict[str, str] | RedisUnreachable] = iter(answers)

    async def ask_anyway(self, _question: object) -> dict[str, str]:
        answer = next(self._answers)
        if isinstance(answer, RedisUnreachable):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((WELL,), ""),
        ((SILENT_ON_ITSELF,), ""),
        ((REFUSING,), "REDIS_REFUSES"),
        ((EVICTING,), "REDIS_EVICTS"),
        ((AWAY, WELL), ""),
        ((AWAY, EVICTING), "REDIS_EVICTS"),
        ((AWAY, AWAY), "REDIS_UNREACHABLE"),
    ],
)
async def test_redis_is_judged_by_two_questions_at_most(
    answers: tuple[dict[str, str] | RedisUnreachable, ...], error: str
) -> None:
    found = await redis_result(Answers(*answers))  # type: ignore[arg-type]  # one method of it

    assert found.error == error
