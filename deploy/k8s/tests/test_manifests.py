# SPDX-License-Identifier: Apache-2.0
"""The manifests render, match the schemas of Kubernetes, and hold together."""

from pathlib import Path

import pytest
import yaml

from deploy.k8s.render import render
from deploy.k8s.validate import HERE, KUSTOMIZATIONS, problems

SERVICES = ("svc-profile", "svc-segmentation", "svc-recommend", "svc-feedback")


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_manifests_match_the_schemas(name: str) -> None:
    assert list(problems(render(HERE / name))) == []


def test_every_service_scales_its_roles_apart() -> None:
    names = {m["metadata"]["name"] for m in render(HERE / "base") if m["kind"] == "Deployment"}
    assert names == {"gateway", *(f"{s}-{role}" for s in SERVICES for role in ("rpc", "consumers", "jobs"))}


def test_no_container_may_become_root() -> None:
    for manifest in render(HERE / "base"):
        pod = manifest.get("spec", {}).get("template", {}).get("spec")
        if pod:
            assert pod["securityContext"]["runAsNonRoot"] is True
            for container in pod["containers"] + pod.get("initContainers", []):
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_no_secret_is_kept_in_the_repository() -> None:
    for path in (HERE / "base").glob("*.yaml"):
        assert all(document["kind"] != "Secret" for document in yaml.safe_load_all(path.read_text()) if document)


def test_the_development_overlay_changes_what_it_says() -> None:
    manifests = {(m["kind"], m["metadata"]["name"]): m for m in render(HERE / "overlays/dev")}
    profile = manifests["Deployment", "svc-profile-rpc"]
    assert profile["metadata"]["namespace"] == "dangol"
    assert profile["spec"]["replicas"] == 1
    assert profile["spec"]["template"]["spec"]["containers"][0]["image"] == "dangol/svc-profile:dev"
    assert manifests["ConfigMap", "dangol-settings"]["data"]["DANGOL_STREAM_REPLICAS"] == "1"


def test_an_unknown_key_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\nnamePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)


def test_a_broken_manifest_is_found(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: many}]}\n"
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n"
    )
    found = list(problems(render(tmp_path)))
    assert any("many" in problem for problem in found)
    assert "Service/a is there twice" in found
