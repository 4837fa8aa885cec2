"""Whatever stands in a file or a variable, it is read, or refused by name without its content."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import ServeSettings, SettingsError
from broker.config.reading import SECRETS, variables
from broker.domain.policy import Policy
from broker.rpc.policy_file import PolicyUnusableError, parse_policy
from broker.store.sealing import Keyring, KeysetUnreadableError, generate_keyset
from fuzz.budget import fuzzed

pytestmark = pytest.mark.timeout(0)

NAMES = variables(ServeSettings)
SECRET = "a-fake-secret"

# As the environment brings them: no NUL, and bytes that are no UTF-8 as lone surrogates.
SETTING = st.text(
    st.characters(exclude_characters="\0", codec="utf-8") | st.integers(0xDC80, 0xDCFF).map(chr),
    max_size=40,
) | st.sampled_from(
    [
        "true",
        "0",
        "-1",
        "9" * 5000,
        "1e400",
        "nan",
        "٣",
        "127.0.0.1:0",
        "[::1]:99999",
        "http://[",
        "https://pleo.example/\udcff",
        "postgresql://u:p@[::1/x",
        "redis+sentinel://",
        "redis://h:99999/x",
        "/" * 200,
        "staging",
        "custom",
        "%ff=%00&a",
    ]
)


def read_settings(environ: dict[str, str]) -> tuple[str, set[str]]:
    """Reads them; returns what is told of them, and which are refused."""
    try:
        return repr(ServeSettings.from_environ(environ)), set()
    except SettingsError as error:
        return str(error), {each.variable for each in error.problems if each.expected}


@fuzzed(100)
@given(st.dictionaries(st.sampled_from(NAMES), SETTING, max_size=8))
def test_any_settings_are_read_or_refused_by_their_names(environ: dict[str, str]) -> None:
    hidden = {f"{each}{SECRET}" for name, each in environ.items() if name in SECRETS}
    environ |= {name: f"{environ[name]}{SECRET}" for name in SECRETS & environ.keys()}

    told, refused = read_settings(environ)

    assert refused <= {*NAMES, *SECRETS}
    assert not any(each in told for each in hidden)


A_PATH = Path("policy.yaml")
A_POLICY = """callers:
  - identity: sa:system:serviceaccount:web:onboarding
    rpcs: [TokenService/*]
    tenants: ["eu/*"]
    scopes: ["export-items:read"]
"""
A_LINE = st.sampled_from([*A_POLICY.splitlines(), "  - &a [*a]", "? [a]", "<<: *a", "!!python/x 1"])


def read_policy(content: bytes) -> str:
    """Reads it; returns what is wrong."""
    try:
        assert isinstance(parse_policy(A_PATH, (content,)), Policy)
    except PolicyUnusableError as error:
        return str(error)
    return ""


@fuzzed(100)
@given(
    st.binary()
    | st.lists(A_LINE | st.text(max_size=20)).map(lambda lines: "\n".join(lines).encode("utf-8"))
)
def test_any_policy_is_read_or_refused_with_its_file(content: bytes) -> None:
    told = read_policy(content)

    assert told == "" or told.startswith("policy.yaml: ")


@pytest.mark.parametrize("mark", [b"[", b"{a: ", b"- ", b"? ", b"&a [", b'{"a":['])
@pytest.mark.parametrize("depth", [50, 1000, 100_000])
def test_a_policy_that_is_nested_without_end_is_refused(mark: bytes, depth: int) -> None:
    assert read_policy(mark * depth).startswith("policy.yaml: ")


A_KEYSET = json.loads(generate_keyset())
A_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
CHANGES = st.dictionaries(
    st.sampled_from(["status", "keyId", "outputPrefixType", "keyData"]),
    A_VALUE | st.sampled_from([0, 3, 99, "ENABLED", "DESTROYED", "RAW", {"typeUrl": "x"}]),
)
TOP = st.dictionaries(st.sampled_from(["primaryKeyId", "key", "x"]), A_VALUE)


def read_keyset(content: bytes) -> str:
    """Reads it; returns what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "keyset.json"
        path.write_bytes(content)
        try:
            assert Keyring.from_file(path).describe()
        except KeysetUnreadableError as error:
            return str(error).replace(str(path), path.name)
        return ""


@fuzzed(100)
@given(CHANGES, TOP, st.binary())
def test_any_keyset_is_read_or_refused_without_its_keys(
    changes: dict[str, object], top: dict[str, object], rubbish: bytes
) -> None:
    changed = {**A_KEYSET, "key": [{**A_KEYSET["key"][0], **changes}]}
    for content in (rubbish, json.dumps(changed).encode(), json.dumps({**changed, **top}).encode()):
        told = read_keyset(content)

        assert told == "" or told.startswith("keyset keyset.json: ")
        assert A_KEYSET["key"][0]["keyData"]["value"] not in told


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"key":' * 100_000, b"\xff", b"null"])
def test_what_is_no_keyset_is_refused_by_the_name_of_its_file(content: bytes) -> None:
    assert read_keyset(content).startswith("keyset keyset.json: ")
