# SPDX-License-Identifier: Apache-2.0
"""Generate the Python code and the descriptor set of the contract (`make proto`), or check that they are fresh."""

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
GENERATED = PROTO / "gen"
DESCRIPTORS = "dangol/descriptors.binpb"


def generate(target: Path) -> None:
    """Write modules, type stubs and the descriptor set with source info below `target`."""
    sources = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "dangol").rglob("*.proto"))
    (target / "dangol").mkdir(parents=True, exist_ok=True)
    outputs = [f"--{kind}_out={target}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    include = Path(protoc.__file__).parent / "_proto"
    # Named by path, so that the virtual environment need not be on PATH.
    plugins = [
        f"--plugin={name}={Path(sys.executable).parent / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{include}",
        *plugins,
        *outputs,
        f"--descriptor_set_out={target / DESCRIPTORS}",
        "--include_imports",
        "--include_source_info",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    (target / "dangol/py.typed").touch()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Name the files that differ between two trees."""
    names = {
        str(path.relative_to(tree))
        for tree in (fresh, committed)
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not (fresh / name).exists()
        or not (committed / name).exists()
        or not filecmp.cmp(fresh / name, committed / name, shallow=False)
    )


def main() -> None:
    """Generate in place, or compare with what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the committed code is stale")
    if not parser.parse_args().check:
        generate(GENERATED)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(Path(folder), GENERATED)
    if stale:
        sys.exit("stale generated code, run `make proto`:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    main()
