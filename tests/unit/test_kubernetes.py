"""The manifests in deploy/kubernetes: what they name is there, and fits the broker they start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.app import _SETTLING_PATIENCE
from broker.client.channel import SERVICE_CONFIG
from broker.config.reading import PREFIX
from broker.config.table import markdown
from broker.rpc.server import ServerSettings
from broker.store.connecting import TIMEOUTS
from support.source import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
POLICIES = sorted(KUBERNETES.rglob("policy.yaml"))
FILES = sorted(set(KUBERNETES.rglob("*.yaml")) - set(POLICIES))
KUSTOMIZATIONS = [path for path in FILES if path.name == "kustomization.yaml"]
RENDERED = sorted((KUBERNETES / "overlays").iterdir())
NAMES = set(re.findall(rf"{PREFIX}[A-Z0-9_]+", markdown()))

AUTHORITIES = "/etc/token-broker/ca"
"""Who signs the certificates of PostgreSQL and Redis."""

Manifest = dict[str, Any]
"""As YAML has it."""


def documents(path: str) -> list[Manifest]:
    return list(yaml.safe_load_all((KUBERNETES / path).read_text()))


def named_files(kustomization: Manifest) -> Iterator[str]:
    yield from kustomization.get("resources", [])
    yield from kustomization.get("components", [])
    yield from (each["path"] for each in kustomization.get("patches", []) if "path" in each)
    for generator in kustomization.get("configMapGenerator", []):
        yield from (*generator.get("envs", []), *generator.get("files", []))


def server() -> tuple[Manifest, Manifest]:
    """The pod of the broker, and its container."""
    pod = documents("base/deployment.yaml")[0]["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_every_document_is_yaml_of_some_kind(path: Path) -> None:
    assert all(each["kind"] and each["apiVersion"] for each in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    read = yaml.safe_load(path.read_text())

    assert [name for name in named_files(read) if not (path.parent / name).exists()] == []


def unknown_names(text: str) -> set[str]:
    """Returns names of variables that no setting has."""
    used = {name.removesuffix("_FILE") for name in re.findall(rf"\b{PREFIX}[A-Z0-9_]+", text)}
    return {name for name in used if name not in NAMES and f"{name}_FILE" not in NAMES}


def test_every_variable_is_a_setting() -> None:
    texts = [path.read_text() for path in (*FILES, *KUBERNETES.rglob("*.env"))]

    assert set().union(*map(unknown_names, texts)) == set()


def test_a_variable_that_is_no_setting_is_found() -> None:
    assert unknown_names("BROKER_HOMES=x BROKER_HOME=y") == {"BROKER_HOMES"}


def test_every_file_setting_lies_in_a_mounted_volume() -> None:
    pod, container = server()
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    settings = (KUBERNETES / "base" / "settings.env").read_text()

    places = set(re.findall(r"=(/.+)/[^/\n]+$", settings, re.MULTILINE))

    # Its files are named by an overlay, or by the addresses of the stores.
    assert places | {AUTHORITIES} == set(mounts)
    assert set(mounts.values()) == {each["name"] for each in pod["volumes"]}


def test_whoever_reaches_postgres_may_know_a_private_authority() -> None:
    pod, container = server()
    init = documents("components/migrate-init/init.yaml")[0]["spec"]["template"]["spec"]
    job = documents("components/migrate-job/job.yaml")[0]["spec"]["template"]["spec"]

    for each in (container, init["initContainers"][0], job["containers"][0]):
        assert AUTHORITIES in {mount["mountPath"] for mount in each["volumeMounts"]}
    for each in (pod, job):
        (volume,) = [found for found in each["volumes"] if found["name"] == "store-ca"]
        assert volume["secret"]["optional"]


def test_every_secret_file_is_one_that_external_secrets_makes() -> None:
    made = {
        each["metadata"]["name"]: {part["secretKey"] for part in each["spec"]["data"]}
        for each in documents("components/external-secrets/externalsecrets.yaml")
    }
    settings = (KUBERNETES / "base" / "settings.env").read_text()

    assert set(re.findall(r"/secrets/(.+)", settings)) == made["token-broker"]
    assert set(re.findall(r"/keyset/(.+)", settings)) == made["token-broker-keyset"]
    assert made["token-broker-migration"] == {"database-url"}


def test_probes_ask_paths_that_the_ops_address_has() -> None:
    _, container = server()
    served = (ROOT / "broker" / "ops" / "server.py").read_text()

    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[name]["httpGet"]
        assert asked["port"] == "ops"
        assert f"async def {asked['path'].removeprefix('/')}(" in served


def test_ports_are_those_of_the_defaults() -> None:
    _, container = server()
    defaults = dict(
        re.findall(r"`(BROKER_(?:GRPC|OPS)_ADDRESS)`.*`127\.0\.0\.1:(\d+)`", markdown())
    )

    ports = {each["name"]: str(each["containerPort"]) for each in container["ports"]}

    assert ports == {
        "grpc": defaults["BROKER_GRPC_ADDRESS"],
        "ops": defaults["BROKER_OPS_ADDRESS"],
    }
    assert f"EXPOSE {ports['grpc']} {ports['ops']}" in DOCKERFILE


def test_the_grace_period_is_longer_than_the_drain() -> None:
    pod, container = server()
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = ServerSettings().grace.total_seconds() + _SETTLING_PATIENCE

    assert pod["terminationGracePeriodSeconds"] >= pause + 2 * drain


def test_image_and_pod_run_as_the_same_number() -> None:
    pod, _ = server()

    user = pod["securityContext"]["runAsUser"]

    assert f"\nUSER {user}:{user}\n" in DOCKERFILE
    assert "HEALTHCHECK " not in DOCKERFILE


def test_the_operators_alerts_are_those_of_prometheus() -> None:
    alerts = yaml.safe_load((ROOT / "deploy" / "alerts" / "token-broker.rules.yaml").read_text())

    (rule,) = documents("components/monitoring/prometheusrule.yaml")

    assert rule["spec"]["groups"] == alerts["groups"]


def test_what_builds_the_wheel_is_locked_as_for_developers() -> None:
    built = (ROOT / "deploy" / "requirements-build.lock").read_text()
    locked = (ROOT / "requirements-dev.lock").read_text()

    entries = re.split(r"\n(?=\S)", built.strip())

    assert [each for each in entries if each not in locked] == []
    assert any(each.startswith("hatchling==") for each in entries)


@pytest.mark.parametrize("overlay", RENDERED, ids=lambda path: path.name)
def test_every_overlay_renders_with_one_way_to_migrate(overlay: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")

    ended = subprocess.run(
        [kubectl, "kustomize", overlay], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("- migrate\n") == 1


def test_what_a_pooler_needs_is_what_the_broker_asks_for() -> None:
    told = (ROOT / "deploy" / "README.md").read_text()

    assert f"ignore_startup_parameters = {','.join(TIMEOUTS)}" in told
    assert dict(re.findall(r"ALTER ROLE token_broker SET (\w+) = '(\w+)';", told)) == TIMEOUTS


def test_callers_are_told_to_balance_and_retry_as_the_client_does() -> None:
    (printed,) = re.findall(
        r"```json\n(.*?)```", (ROOT / "deploy" / "README.md").read_text(), re.DOTALL
    )

    assert json.loads(printed) == json.loads(SERVICE_CONFIG)
