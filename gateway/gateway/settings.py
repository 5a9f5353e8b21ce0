# SPDX-License-Identifier: Apache-2.0
"""Settings of the gateway, read from the environment once, in `__main__`."""

import ipaddress
from pathlib import Path
from typing import Self

from chassis.settings import CommonSettings
from pydantic import Field, SecretStr, model_validator

SERVICES = ("profile", "segmentation", "recommend", "feedback", "metrics")
"""The services behind the gateway, in the order in which their answers are put together."""


class Settings(CommonSettings):
    """Where the gateway listens, where the services are, and how much it takes on."""

    port: int = Field(8080, ge=0, le=65535, validation_alias="DANGOL_GATEWAY_PORT")
    """Port of the public HTTP API; 0 is any free one."""
    host: str = Field("127.0.0.1", validation_alias="DANGOL_GATEWAY_HOST")
    """Address that the public HTTP API listens on."""
    prometheus_port: int = Field(9200, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 is none."""

    profile_port: int = Field(9101, ge=1, le=65535)
    segmentation_port: int = Field(9102, ge=1, le=65535)
    recommend_port: int = Field(9103, ge=1, le=65535)
    feedback_port: int = Field(9104, ge=1, le=65535)
    metrics_port: int = Field(9105, ge=1, le=65535)
    profile_address: str = ""
    """gRPC target of a service, such as `dns:///profile:9101`; empty is its port on this machine."""
    segmentation_address: str = ""
    recommend_address: str = ""
    feedback_address: str = ""
    metrics_address: str = ""

    grpc_tls_ca: Path | None = None
    """PEM authority of the services' certificates; none is plain text."""
    grpc_tls_certificate: Path | None = None
    """PEM certificate of the gateway, for mTLS."""
    grpc_tls_key: Path | None = None
    """PEM key of the gateway, for mTLS."""

    incoming_webhooks: SecretStr = SecretStr("[]")
    """Third parties whose webhooks become events, as JSON; see `gateway.webhooks.sources`."""
    rpc_seconds: float = Field(10, gt=0, validation_alias="DANGOL_GATEWAY_RPC_SECONDS")
    """Deadline of one call to a service."""
    max_body_bytes: int = Field(4_718_592, ge=2**16, le=2**26, validation_alias="DANGOL_GATEWAY_MAX_BODY_BYTES")
    """Largest body of a request that is not ingest; keys set the limit of ingest."""
    max_waiting_bytes: int = Field(2**27, ge=2**20, validation_alias="DANGOL_GATEWAY_MAX_WAITING_BYTES")
    """Bytes of events that may wait for JetStream before the gateway answers 503."""

    @model_validator(mode="after")
    def _development_keys_stay_here(self) -> Self:
        if self.local and not is_loopback(self.host):
            raise ValueError(
                f"DANGOL_LOCAL=1 creates well-known keys, so DANGOL_GATEWAY_HOST must be loopback, not {self.host}"
            )
        return self

    def address_of(self, service: str) -> str:
        """Return the gRPC target of a service: `profile`, `segmentation`…"""
        address: str = getattr(self, f"{service}_address")
        port: int = getattr(self, f"{service}_port")
        return address or f"127.0.0.1:{port}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
