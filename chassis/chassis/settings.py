# SPDX-License-Identifier: Apache-2.0
"""Settings that every deployable reads from the environment, once, in its `__main__`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.identifiers import DEFAULT_REGION, IdentifierType, IdentifierTypes
from chassis.identity import IdentityKey


class CommonSettings(BaseSettings):
    """Where the engines are and which secrets are shared. Every name has the prefix `DANGOL_`."""

    model_config = SettingsConfigDict(
        env_prefix="DANGOL_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    nats_url: str = "nats://127.0.0.1:9122"
    """JetStream servers, separated by commas."""
    stream_prefix: str = ""
    """Put before stream names and subjects, so that several platforms can share one server."""
    stream_replicas: int = Field(1, ge=1, le=5)
    """Copies of each stream: 1 on a single server, 3 in a cluster."""
    stream_max_bytes: int = Field(4 * 2**30, ge=2**20)
    """Size of the events stream at which it refuses more; what everybody has read is trimmed long before."""
    event_shards: int = Field(8, ge=1, le=1024)
    """Number of subjects that events are spread over."""
    token_key: SecretStr = SecretStr("")
    """Secret with which caller tokens are signed, at least 32 bytes."""
    api_keys: str = "[]"
    """API keys as JSON; see `chassis.keys`."""
    local: bool = False
    """Local mode: well-known development keys, loopback only."""
    home: Path = Path(".dangol")
    """Folder of everything that is kept on this machine."""
    prometheus_port: int = Field(0, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 is none."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    drain_seconds: float = Field(20, ge=0)
    """How long work in hand may take after SIGTERM."""

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return value.upper()


class ServiceSettings(CommonSettings):
    """What a service reads besides; a service subclasses it, sets `service` and adds its own fields."""

    service: ClassVar[str]
    """Short name: `profile`, `segmentation`…"""

    port: int
    """Port of gRPC; the subclass names its variable, such as `DANGOL_PROFILE_PORT`."""
    postgres_url: SecretStr = SecretStr("postgresql://postgres@127.0.0.1:9132")
    """Server of PostgreSQL, without a database name."""
    postgres_database: str = ""
    """Name of the database; `dangol_<service>` when empty."""
    postgres_pool: int = Field(8, ge=1)
    """Most connections of one process."""
    identity_key: SecretStr = SecretStr("")
    """Secret with which fragment ids are made, hexadecimal, at least 16 bytes; the same in every service, for ever."""
    identifiers: tuple[IdentifierType, ...] = ()
    """Types of identifier as JSON, strongest first; see `chassis.identifiers`. The same in every service."""
    junk_ids: tuple[str, ...] = ()
    """Further values that mean nobody, as a JSON list, in whatever case and quotes. The same in every service."""
    phone_region: str = Field(DEFAULT_REGION, pattern="^[A-Z]{2}$")
    """Country of telephone numbers that name none (ISO 3166). The same in every service."""
    grpc_host: str = "127.0.0.1"
    """Address that gRPC listens on."""
    grpc_tls_certificate: Path | None = None
    """PEM certificate of the server; none is plain text."""
    grpc_tls_key: Path | None = None
    """PEM key of the server."""
    grpc_tls_client_ca: Path | None = None
    """PEM authority that clients must be signed by (mTLS)."""
    max_deliver: int = Field(8, ge=1)
    """Deliveries of a message that keeps failing before it is dead-lettered."""
    ack_wait_seconds: float = Field(60, gt=0)
    """Time after which a message that is still in hand is taken for lost with its process and sent again."""
    inbox_days: int = Field(14, ge=1)
    """How long message ids are remembered."""
    retention_seconds: float = Field(3600, gt=0)
    """How often the rules of retention are enforced."""
    access_log_days: int = Field(730, ge=1)
    """How long accesses to personal data stay on record."""

    @property
    def database_name(self) -> str:
        """Name of the database of this service."""
        return self.postgres_database or f"dangol_{self.service}"

    def identity(self) -> IdentityKey:
        """Return what resolves references to customers; raises `Invalid` or ValueError that names the setting."""
        try:
            key = bytes.fromhex(self.identity_key.get_secret_value())
        except ValueError as error:
            raise ValueError("DANGOL_IDENTITY_KEY must be hexadecimal digits") from error
        return IdentityKey(key, IdentifierTypes(self.identifiers, self.junk_ids, self.phone_region))
