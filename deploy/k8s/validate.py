# SPDX-License-Identifier: Apache-2.0
"""Check the rendered manifests against the schemas of Kubernetes, and against one another (`make k8s-validate`)."""

import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate

from deploy.k8s.render import Manifest, render

HERE = Path(__file__).parent
KUSTOMIZATIONS = ("base", "overlays/dev")
VERSION = "1.34"


def problems(manifests: list[Manifest]) -> Iterator[str]:
    """Say what is wrong: schema, names given twice, references to what is not there."""
    seen: set[tuple[str, str]] = set()
    for manifest in manifests:
        name = (manifest["kind"], manifest["metadata"]["name"])
        if name in seen:
            yield f"{name[0]}/{name[1]} is there twice"
        seen.add(name)
        try:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name[0]}/{name[1]}: {'.'.join(map(str, error.path))}: {error.message}"
    yield from _dangling(manifests, seen)


def _dangling(manifests: list[Manifest], names: set[tuple[str, str]]) -> Iterator[str]:
    """Name ConfigMaps and services that a workload refers to and nobody brings."""
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template", {})
        pod = template.get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            for source in container.get("envFrom", []):
                wanted = source.get("configMapRef", {}).get("name")
                if wanted and ("ConfigMap", wanted) not in names:
                    yield f"{manifest['metadata']['name']} wants the ConfigMap {wanted}"
        selector = manifest.get("spec", {}).get("selector", {}).get("matchLabels", {})
        labels = template.get("metadata", {}).get("labels", {})
        if manifest["kind"] in ("Deployment", "StatefulSet") and not selector.items() <= labels.items():
            yield f"{manifest['metadata']['name']} does not select its own pods"


def main() -> None:
    """Render and check every kustomization."""
    failed = False
    for name in KUSTOMIZATIONS:
        manifests = render(HERE / name)
        found = list(problems(manifests))
        failed = failed or bool(found)
        sys.stdout.write(f"{name}: {len(manifests)} manifests, {len(found)} problems (Kubernetes {VERSION})\n")
        sys.stdout.writelines(f"  {problem}\n" for problem in found)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
