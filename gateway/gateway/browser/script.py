# SPDX-License-Identifier: Apache-2.0
"""`dangol.js` as it is served: the source without comments and indentation, plain and gzipped."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Form:
    """One encoding of the script."""

    body: bytes
    etag: bytes


@dataclass(frozen=True)
class BrowserScript:
    """The script in both encodings; their tags differ, as strong tags must."""

    plain: Form
    gzipped: Form


def load() -> BrowserScript:
    """Read the script that lies beside this module."""
    source = files(__package__).joinpath("dangol.js").read_text(encoding="utf-8")
    body = shorten(source).encode()
    digest = hashlib.sha256(body).hexdigest()[:20]
    return BrowserScript(
        Form(body, f'"{digest}"'.encode()), Form(gzip.compress(body, 9, mtime=0), f'"{digest}-gzip"'.encode())
    )


def shorten(source: str) -> str:
    """Take away comments, which stand on lines of their own, blank lines and indentation; the licence line stays."""
    licence, *lines = (line.strip() for line in source.splitlines())
    kept = [line for line in lines if line and not line.startswith("//")]
    return "\n".join([licence, *kept, ""])
