# SPDX-License-Identifier: Apache-2.0
"""Make throw-away secrets for the development overlay (`python -m deploy.k8s.secrets`); existing ones are kept."""

import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

OVERLAY = Path(__file__).parent / "overlays/dev"


def main() -> None:
    """Write the two files that the overlay's secretGenerator reads, readable by the owner alone."""
    services, gateway = OVERLAY / "secrets.env", OVERLAY / "gateway-secrets.env"
    if services.exists() and gateway.exists():
        sys.stdout.write("the secrets of the development overlay exist already\n")
        return
    password, token_key = secrets.token_urlsafe(24), secrets.token_hex(32)
    write_key, secret_key = f"dk_write_{secrets.token_urlsafe(18)}", f"dk_secret_{secrets.token_urlsafe(24)}"
    _write(
        services,
        POSTGRES_PASSWORD=password,
        DANGOL_POSTGRES_URL=f"postgresql://postgres:{password}@postgres:5432",
        DANGOL_IDENTITY_KEY=secrets.token_hex(32),
        DANGOL_PROFILE_SIGNING_KEY=secrets.token_hex(32),
        DANGOL_TOKEN_KEY=token_key,
    )
    keys = [
        {"id": "dev-write", "kind": "write", "sha256": [_hash(write_key)]},
        {"id": "dev-secret", "kind": "secret", "sha256": [_hash(secret_key)], "scopes": ["*"]},
    ]
    _write(gateway, DANGOL_TOKEN_KEY=token_key, DANGOL_API_KEYS=json.dumps(keys))
    sys.stdout.write(f"write key: {write_key}\nsecret key: {secret_key}\nThey are shown once; only hashes are kept.\n")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _write(path: Path, **values: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


if __name__ == "__main__":
    main()
