# SPDX-License-Identifier: Apache-2.0
"""Render the part of kustomize that our manifests use, so that they can be checked where no kustomize is.

An unknown key in a kustomization is an error: what is rendered here must be what `kubectl kustomize` renders.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def render(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization; raises ValueError on anything that this renderer does not know."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    manifests = [m for name in kustomization.get("resources", []) for m in _resource(folder / name)]
    manifests += [_secret(folder, entry) for entry in kustomization.get("secretGenerator", [])]
    for key, value in kustomization.items():
        if key not in _TRANSFORMS:
            raise ValueError(f"{folder}/kustomization.yaml: {key} is not known to this renderer")
        _TRANSFORMS[key](manifests, value)
    return manifests


def _resource(path: Path) -> Iterator[Manifest]:
    if path.is_dir():
        yield from render(path)
    else:
        yield from (document for document in yaml.safe_load_all(path.read_text()) if document)


def _secret(folder: Path, entry: Manifest) -> Manifest:
    data: dict[str, str] = {}
    for name in entry["envs"]:
        path = folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        data |= dict(line.split("=", 1) for line in lines if "=" in line)
    metadata = {"name": entry["name"]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def _namespace(manifests: list[Manifest], namespace: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in _CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = namespace


def _images(manifests: list[Manifest], images: list[Manifest]) -> None:
    tags = {image["name"]: image["newTag"] for image in images}
    for container in _containers(manifests):
        if container["image"] in tags:
            container["image"] += f":{tags[container['image']]}"


def _containers(manifests: list[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def _replicas(manifests: list[Manifest], replicas: list[Manifest]) -> None:
    workloads = {m["metadata"]["name"]: m for m in manifests if m["kind"] in ("Deployment", "StatefulSet")}
    for entry in replicas:
        workloads[entry["name"]]["spec"]["replicas"] = entry["count"]


def _patches(manifests: list[Manifest], patches: list[Manifest]) -> None:
    for patch in patches:
        target = patch["target"]
        found = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (target["kind"], target["name"])]
        if len(found) != 1:
            raise ValueError(f"a patch names {target['kind']}/{target['name']}, which is there {len(found)} times")
        for operation in yaml.safe_load(patch["patch"]):
            _replace(found[0], operation)


def _replace(manifest: Manifest, operation: Manifest) -> None:
    if operation["op"] != "replace":
        raise ValueError(f"the operation {operation['op']} is not known to this renderer")
    *parents, last = operation["path"].strip("/").split("/")
    for name in parents:
        manifest = manifest[name]
    if last not in manifest:
        raise ValueError(f"{operation['path']} is not there to be replaced")
    manifest[last] = operation["value"]


def _nothing(_manifests: list[Manifest], _value: Any) -> None:
    """Already dealt with, or of no effect on the manifests."""


_TRANSFORMS: dict[str, Callable[[list[Manifest], Any], None]] = {
    "apiVersion": _nothing,
    "kind": _nothing,
    "resources": _nothing,
    "secretGenerator": _nothing,
    "generatorOptions": _nothing,
    "namespace": _namespace,
    "images": _images,
    "replicas": _replicas,
    "patches": _patches,
}
