# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that no linter knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOYABLES = ("gateway", "svc-profile", "svc-segmentation", "svc-recommend", "svc-feedback", "svc-metrics")
HEADINGS = ["Owns", "Answers", "Announces", "Hears", "Settings"]
MODULES = ("app", "settings", "rpc", "usecases", "store", "wire", "domain")


def tracked(pattern: str) -> list[Path]:
    """List files of the repository, also those that are about to be added."""
    result = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in result.stdout.splitlines() if (ROOT / name).exists()]


def test_imports_only_point_down() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


def test_every_python_file_names_its_licence() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in tracked("*.py")
        if "proto/gen" not in str(path)
        and path.stat().st_size
        and "SPDX-License-Identifier" not in path.read_text()[:200]
    ]
    assert missing == []


@pytest.mark.parametrize("deployable", DEPLOYABLES)
def test_every_deployable_says_what_it_does(deployable: str) -> None:
    text = (ROOT / deployable / "README.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == HEADINGS


@pytest.mark.parametrize("deployable", DEPLOYABLES[1:])
def test_every_service_has_the_same_modules(deployable: str) -> None:
    package = ROOT / deployable / deployable.replace("-", "_")
    names = {path.stem for path in package.iterdir()}
    assert set(MODULES) - names == set()


@pytest.mark.parametrize("deployable", DEPLOYABLES)
def test_every_deployable_can_be_built_and_run(deployable: str) -> None:
    assert (ROOT / deployable / "Dockerfile").exists()
    assert (ROOT / "deploy/k8s/base" / f"{deployable}.yaml").exists()


def test_every_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs/dependencies.md").read_text()
    names = [
        re.split(r"[\[=<>~]", line)[0].strip()
        for line in (ROOT / "requirements.in").read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    unnamed = [name for name in names if name not in reasons and not name.startswith("types-grpcio")]
    assert unnamed == []


def test_the_lock_file_names_no_registry() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert re.findall(r"https?://|--index|--find-links", text) == []


def test_no_module_hides_what_it_holds() -> None:
    vague = {"utils", "helpers", "common", "manager", "base"}
    found = [str(p.relative_to(ROOT)) for p in tracked("*.py") if vague & {p.stem, p.parent.name}]
    assert found == []


def test_modules_stay_short_enough_to_read() -> None:
    """About 300 lines; what grows beyond becomes a package."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked("*.py")
        if "proto/gen" not in str(path)
        and "tests" not in path.parts
        and (lines := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_tests_use_no_mocks() -> None:
    banned = re.compile(r"unittest\.mock|\bmonkeypatch\b|\bmocker\b|\bMagicMock\b")
    found = [
        str(p.relative_to(ROOT)) for p in tracked("*test*.py") if banned.search(p.read_text()) and p != Path(__file__)
    ]
    assert found == []
