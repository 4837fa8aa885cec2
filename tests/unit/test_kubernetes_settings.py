"""The settings and policies in deploy/kubernetes: the broker takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import ServeSettings
from broker.config.reading import PREFIX
from broker.rpc.policy_file import PolicyUnusableError, parse_policy
from support.source import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
POLICIES = sorted((KUBERNETES / "overlays").rglob("policy.yaml"))
MOUNTS = ("/etc/token-broker/", "/run/token-broker/")

CONTENTS = {
    "database-url": "postgresql://token_broker@postgres.example.org/broker?sslmode=verify-full",
    "redis-url": "rediss://redis.example.org:6379/0",
}
"""Of mounted files that are read with the settings; what is in the others does not matter here."""


def variables(path: Path) -> dict[str, str]:
    """Returns a file of variables, as kustomize reads it."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line)


def environment(overlay: str) -> dict[str, str]:
    """Returns what the pods of an overlay are given: its own, and the base's unless it replaces."""
    directory = KUBERNETES / "overlays" / overlay
    is_replaced = "behavior: replace\n    envs:" in (directory / "kustomization.yaml").read_text()
    base = {} if is_replaced else variables(KUBERNETES / "base" / "settings.env")
    return base | variables(directory / "settings.env")


def mounted(environ: dict[str, str], directory: Path) -> dict[str, str]:
    """Returns the same with volumes below a directory, and with the files in them."""
    moved = dict(environ)
    for name, place in environ.items():
        if place.startswith(MOUNTS):
            path = directory / place.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("_FILE"):
                path.write_text(CONTENTS.get(path.name, "something"))
            moved[name] = str(path)
    return moved


@pytest.mark.parametrize("overlay", ["laptop", "production", "staging"])
def test_the_broker_takes_the_settings_of_every_overlay(overlay: str, tmp_path: Path) -> None:
    settings = ServeSettings.from_environ(mounted(environment(overlay), tmp_path))

    assert settings.home == overlay
    assert all(name.startswith(PREFIX) for name in environment(overlay))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.parent.name)
def test_the_broker_takes_the_policy_of_every_overlay(path: Path) -> None:
    assert parse_policy(path, (path.read_bytes(),)).rules


def test_a_broker_refuses_the_policy_of_the_base() -> None:
    path = KUBERNETES / "base" / "policy.yaml"

    with pytest.raises(PolicyUnusableError):
        parse_policy(path, (path.read_bytes(),))


def test_a_policy_with_an_unknown_call_is_refused() -> None:
    text = POLICIES[-1].read_bytes().replace(b"TokenService/*", b"TokenServices/*")

    with pytest.raises(PolicyUnusableError):
        parse_policy(POLICIES[-1], (text,))
