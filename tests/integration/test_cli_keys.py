"""`keys rewrap` and `keys remove` against a broker over real gRPC."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.domain.errors import CallerNotAllowed, KeyUnavailable
from broker.rpc.caller import ANONYMOUS
from broker.service.rewrapping import RewrapProgress
from broker.store.keysets import read_keyset_file
from broker.store.sealing import generate_keyset
from support.cli import Ended, run_beside
from support.fake_broker import AskedForRewrap
from support.keysets import add_key, promote_key
from support.rpc import Served

THE_KEY = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keyset.json"
    file.write_text(generate_keyset())
    return file


@pytest.fixture
def older(path: Path, served: Served) -> int:
    """A key that was primary once; the broker has the newer one, and nothing under another."""
    older = read_keyset_file(path).primary_key_id
    newer = add_key(path)
    promote_key(path, newer)
    served.broker.rewraps = [RewrapProgress(key_id=newer, total=0)] * 2
    return older


async def keys(served: Served, path: Path, *arguments: str) -> Ended:
    environ = {
        "BROKER_ADDRESS": f"127.0.0.1:{served.port}",
        "BROKER_KEYSET_FILE": str(path),
    }
    return await run_beside("keys", *arguments, environ=environ)


async def test_rewrapping_tells_how_it_ended(served: Served, path: Path) -> None:
    served.broker.rewraps.append(RewrapProgress(key_id=THE_KEY, total=3, rewrapped=3))

    ended = await keys(served, path, "rewrap", "--reason", "OPS-17", "--json")

    assert (ended.status, ended.stderr) == (0, "")
    assert ended.document == {
        "key_id": 7,
        "total_count": "3",
        "rewrapped_count": "3",
        "unreadable_count": "0",
    }
    assert served.broker.asked[0] == AskedForRewrap(by=ANONYMOUS, reason="OPS-17")


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (RewrapProgress(key_id=7, total=3, rewrapped=2, unreadable=1), "1 values do not open"),
        (RewrapProgress(key_id=7, total=3, rewrapped=1), "2 are left under an older key"),
    ],
)
async def test_a_rewrapping_that_leaves_something_fails(
    served: Served, path: Path, last: RewrapProgress, told: str
) -> None:
    served.broker.rewraps.append(last)

    ended = await keys(served, path, "rewrap")

    assert ended.status == 1
    assert told in ended.stderr


async def test_a_missing_key_is_told_with_what_to_do(served: Served, path: Path) -> None:
    served.broker.failure = KeyUnavailable("this replica lacks keys in use: [5]")

    ended = await keys(served, path, "rewrap")

    assert ended.status == 1
    assert ended.stderr.startswith("error: KEY_UNAVAILABLE: ")
    assert "roll the newest keyset out" in ended.stderr


async def test_a_key_that_nothing_needs_is_removed(served: Served, path: Path, older: int) -> None:
    ended = await keys(served, path, "remove", str(older), "--json")

    written = read_keyset_file(Path(ended.document["file"]))
    assert older not in written.key_ids
    assert served.broker.asked == ["keys counted"]


async def refused(served: Served, path: Path, older: int) -> Ended:
    """Tries to remove a key; nothing may be written."""
    ended = await keys(served, path, "remove", str(older))
    assert ended.status == 1
    assert list(path.parent.iterdir()) == [path]
    return ended


async def test_a_key_that_rows_may_need_is_not_removed(
    served: Served, path: Path, older: int
) -> None:
    newer = read_keyset_file(path).primary_key_id
    served.broker.rewraps = [RewrapProgress(key_id=newer, total=3)] * 2

    ended = await refused(served, path, older)

    assert "3 rows or escrows are under other keys" in ended.stderr


async def test_a_key_that_the_broker_still_seals_under_is_not_removed(
    served: Served, path: Path, older: int
) -> None:
    served.broker.rewraps = [RewrapProgress(key_id=older, total=0)] * 2

    ended = await refused(served, path, older)

    assert "still seals under" in ended.stderr


async def test_a_broker_that_does_not_tell_lets_nothing_be_removed(
    served: Served, path: Path, older: int
) -> None:
    served.broker.failure = CallerNotAllowed("no rule")

    ended = await refused(served, path, older)

    assert ended.stderr.startswith("error: CALLER_NOT_ALLOWED: ")


async def test_status_shows_the_file_where_the_broker_tells_no_rows(
    served: Served, path: Path
) -> None:
    served.broker.failure = CallerNotAllowed("no rule")

    ended = await keys(served, path, "status")

    assert ended.status == 0
    assert len(ended.stdout.splitlines()) == 2
    assert ended.stderr.startswith("rows per key: not known, CALLER_NOT_ALLOWED")
