# SPDX-License-Identifier: Apache-2.0
"""Webhooks as a receiver sees them: a real HTTP server, and the unmodified verifier of Standard Webhooks."""

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
import pytest
from chassis.errors import Invalid
from chassis.testing import Engines, RunningService, running
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from dangol.profile.v1 import identity_pb2
from dangol.profile.v1 import webhooks_pb2 as pb
from dangol.profile.v1.webhooks_pb2_grpc import WebhookServiceStub
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svc_profile.app import build
from svc_profile.clients import WebhookClient, check_url
from svc_profile.domain.addresses import may_be_called
from svc_profile.domain.webhooks import Outcome, wait_seconds
from svc_profile.settings import Settings

LOOPBACK = (ip_network("127.0.0.0/8"),)
MERGED = "dangol.profile.v1.ProfilesMerged"
numbers = itertools.count()


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A receiver of webhooks that answers what it is told to."""

    port: int = 0
    answers: dict[str, list[str]] = field(default_factory=dict)
    """By path, the status lines of the next answers; 200 afterwards."""
    received: list[Received] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    never: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the end, so that connections that were left open are closed."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        path = head[0].split(" ")[1]
        self.received.append(Received(path, headers, body))
        self.news.set()
        waiting = self.answers.get(path, [])
        status = waiting.pop(0) if waiting else "200 OK"
        if status == "never":
            await self.never.wait()
            writer.close()
            return
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok".encode())
        await writer.drain()
        writer.close()

    async def of(self, path: str, count: int) -> list[Received]:
        """Wait until so many requests have come to a path."""
        async with asyncio.timeout(30):
            while len(found := [each for each in self.received if each.path == path]) < count:
                self.news.clear()
                await self.news.wait()
        return found


@pytest.fixture(scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    receiver.never.set()
    server.close()


@pytest.fixture(scope="module")
async def service(engines: Engines) -> AsyncIterator[RunningService]:
    overrides: dict[str, Any] = {
        "webhook_allow_nets": ("127.0.0.0/8",),
        "webhook_retry_seconds": (0.05, 0.1),
        "webhook_timeout_seconds": 10,
    }
    async with running(build, Settings, engines, **overrides) as service:
        yield service


@pytest.fixture
def path() -> str:
    """Keep what one test receives apart from the others."""
    return f"/hook-{next(numbers)}"


def stub(service: RunningService) -> Any:
    return service.stub(WebhookServiceStub)


async def create(service: RunningService, url: str, *event_types: str) -> tuple[str, str]:
    endpoint = pb.WebhookEndpoint(url=url, event_types=event_types or [MERGED])
    request = pb.CreateWebhookEndpointRequest(webhook_endpoint=endpoint)
    answer: pb.CreateWebhookEndpointResponse = await stub(service).CreateWebhookEndpoint(request)
    return answer.webhook_endpoint.endpoint_id, answer.secret


async def deliveries(service: RunningService, endpoint_id: str, **fields: Any) -> list[pb.WebhookDelivery]:
    request = pb.ListWebhookDeliveriesRequest(endpoint_id=endpoint_id, **fields)
    answer: pb.ListWebhookDeliveriesResponse = await stub(service).ListWebhookDeliveries(request)
    return list(answer.deliveries)


async def settled(service: RunningService, endpoint_id: str, state: int) -> list[pb.WebhookDelivery]:
    """Wait until everything for an endpoint is in a state."""
    async with asyncio.timeout(30):
        while not (found := await deliveries(service, endpoint_id)) or any(each.state != state for each in found):
            await asyncio.sleep(0.02)
    return found


def merged(number: int) -> identity_pb2.ProfilesMerged:
    return identity_pb2.ProfilesMerged(profile_id=f"prf_{number}", absorbed_profile_ids=[f"prf_{number + 1}"])


async def test_a_domain_event_arrives_signed(service: RunningService, receiver: Receiver, path: str) -> None:
    """The verifier of Standard Webhooks accepts it, and nothing that was changed on the way."""
    endpoint_id, secret = await create(service, receiver.url(path))
    await service.deliver(merged(1), message_ids=["first-event"])
    (received,) = await receiver.of(path, 1)
    payload = Webhook(secret).verify(received.body, received.headers)
    assert payload["type"] == MERGED
    assert payload["data"]["profileId"] == "prf_1"
    assert received.headers["webhook-id"] == "first-event"
    assert received.headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(received.body.replace(b"prf_1", b"prf_9"), received.headers)
    (delivery,) = await settled(service, endpoint_id, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    assert (delivery.webhook_id, delivery.event_type, delivery.attempts, delivery.last_status) == (
        "first-event", MERGED, 1, 200,
    )  # fmt: skip


async def test_only_what_is_wanted_is_sent(service: RunningService, receiver: Receiver, path: str) -> None:
    """By full name, by package, or everything; a message that comes again is sent once."""
    named, _ = await create(service, receiver.url(path), "dangol.profile.v1.FragmentsForgotten")
    package, _ = await create(service, receiver.url(path + "-package"), "dangol.profile.v1.*")
    everything, _ = await create(service, receiver.url(path + "-all"), "*")
    forgotten = identity_pb2.FragmentsForgotten()
    await service.deliver(merged(2), forgotten, message_ids=[f"m{path}", f"f{path}"])
    await receiver.of(path + "-all", 2)
    await settled(service, package, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    await settled(service, named, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    ids = {name: {each.webhook_id for each in await deliveries(service, name)} for name in (named, package, everything)}
    assert ids[named] == {f"f{path}"}
    assert {f"m{path}", f"f{path}"} <= ids[package] <= ids[everything]
    for endpoint_id in ids:
        await stub(service).DeleteWebhookEndpoint(pb.DeleteWebhookEndpointRequest(endpoint_id=endpoint_id))


async def test_a_failed_attempt_is_made_again_under_the_same_id(
    service: RunningService, receiver: Receiver, path: str
) -> None:
    receiver.answers[path] = ["500 Broken", "302 Elsewhere\r\nlocation: /other"]
    endpoint_id, secret = await create(service, receiver.url(path))
    ping = await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    received = await receiver.of(path, 3)
    assert {each.headers["webhook-id"] for each in received} == {ping.webhook_id}
    for each in received:
        assert Webhook(secret).verify(each.body, each.headers)["type"] == "dangol.profile.v1.WebhookPinged"
    assert not [each for each in receiver.received if each.path == "/other"]
    (delivery,) = await settled(service, endpoint_id, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    assert (delivery.attempts, delivery.last_error) == (3, "")


async def test_an_endpoint_that_takes_nothing_is_disabled_until_it_is_replayed(
    service: RunningService, receiver: Receiver, path: str
) -> None:
    """Its message is dead, its end is announced, and both can be undone."""
    receiver.answers[path] = ["503 Busy"] * 3
    endpoint_id, _ = await create(service, receiver.url(path))
    await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    (dead,) = await settled(service, endpoint_id, pb.WEBHOOK_DELIVERY_STATE_DEAD)
    assert (dead.attempts, dead.last_status, dead.last_error) == (3, 503, "answered with 503")
    found = await stub(service).GetWebhookEndpoint(pb.GetWebhookEndpointRequest(endpoint_id=endpoint_id))
    assert found.webhook_endpoint.disabled
    assert "answered with 503" in found.webhook_endpoint.disabled_reason
    await service.settled()
    assert endpoint_id in [each.endpoint_id for each in await service.published(pb.WebhookEndpointDisabled)]
    with pytest.raises(grpc.aio.AioRpcError, match="disabled"):
        await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    update = pb.UpdateWebhookEndpointRequest(webhook_endpoint=pb.WebhookEndpoint(endpoint_id=endpoint_id))
    update.update_mask.paths.append("disabled")
    enabled = await stub(service).UpdateWebhookEndpoint(update)
    assert not enabled.webhook_endpoint.disabled_reason
    request = pb.ReplayWebhookDeliveriesRequest(endpoint_id=endpoint_id)
    assert (await stub(service).ReplayWebhookDeliveries(request)).replayed_count == 1
    (delivered,) = await settled(service, endpoint_id, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    assert delivered.webhook_id == dead.webhook_id


async def test_an_endpoint_that_does_not_answer_holds_up_nobody(
    service: RunningService, receiver: Receiver, path: str
) -> None:
    """Others get their messages while it is waited for."""
    receiver.answers[path] = ["never"] * 3
    slow, _ = await create(service, receiver.url(path))
    quick, _ = await create(service, receiver.url(path + "-quick"))
    await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=slow))
    await receiver.of(path, 1)
    for _ in range(20):
        await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=quick))
    await settled(service, quick, pb.WEBHOOK_DELIVERY_STATE_DELIVERED)
    (waiting,) = await deliveries(service, slow)
    assert (waiting.state, waiting.attempts) == (pb.WEBHOOK_DELIVERY_STATE_PENDING, 0)
    await stub(service).DeleteWebhookEndpoint(pb.DeleteWebhookEndpointRequest(endpoint_id=slow))


async def test_gone_means_gone(service: RunningService, receiver: Receiver, path: str) -> None:
    receiver.answers[path] = ["410 Gone"]
    endpoint_id, _ = await create(service, receiver.url(path))
    await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    (dead,) = await settled(service, endpoint_id, pb.WEBHOOK_DELIVERY_STATE_DEAD)
    assert dead.attempts == 1
    found = await stub(service).GetWebhookEndpoint(pb.GetWebhookEndpointRequest(endpoint_id=endpoint_id))
    assert found.webhook_endpoint.disabled


async def test_an_endpoint_is_disabled_and_enabled_by_what_is_set(
    service: RunningService, receiver: Receiver, path: str
) -> None:
    """Without a mask, `false` is an answer too."""
    endpoint_id, _ = await create(service, receiver.url(path))
    for disabled in (True, False):
        endpoint = pb.WebhookEndpoint(endpoint_id=endpoint_id, disabled=disabled)
        await stub(service).UpdateWebhookEndpoint(pb.UpdateWebhookEndpointRequest(webhook_endpoint=endpoint))
        found = await stub(service).GetWebhookEndpoint(pb.GetWebhookEndpointRequest(endpoint_id=endpoint_id))
        assert found.webhook_endpoint.disabled is disabled
        assert found.webhook_endpoint.HasField("disabled")
        assert found.webhook_endpoint.url == receiver.url(path)


async def test_both_secrets_sign_while_one_is_changed(service: RunningService, receiver: Receiver, path: str) -> None:
    endpoint_id, former = await create(service, receiver.url(path))
    request = pb.RotateWebhookSecretRequest(endpoint_id=endpoint_id)
    rotated = await stub(service).RotateWebhookSecret(request)
    assert rotated.secret != former
    await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    (received,) = await receiver.of(path, 1)
    for secret in (former, rotated.secret):
        assert Webhook(secret).verify(received.body, received.headers)
    last = await stub(service).RotateWebhookSecret(
        pb.RotateWebhookSecretRequest(endpoint_id=endpoint_id, former_hours=0)
    )
    await stub(service).PingWebhookEndpoint(pb.PingWebhookEndpointRequest(endpoint_id=endpoint_id))
    received = (await receiver.of(path, 2))[-1]
    assert Webhook(last.secret).verify(received.body, received.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(rotated.secret).verify(received.body, received.headers)
    listed = await stub(service).ListWebhookEndpoints(pb.ListWebhookEndpointsRequest())
    assert last.secret not in str(listed)
    async with service.database.snapshot() as tx:
        rows = await tx.rows("SELECT * FROM webhook_endpoints")
    assert last.secret.removeprefix("whsec_") not in json.dumps([str(row) for row in rows])


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://[::ffff:10.0.0.1]/",
        "https://user:secret@example.com/", "https://example.com/#x", "ftp://example.com/", "/only/a/path",
        "https://metadata.google.internal/", "https://db/", "http://example.com/", "https://[64:ff9b::a00:1]/", "https://[fd00::1]/",
    ],
)  # fmt: skip
def test_an_address_inside_is_refused_when_it_is_written_down(url: str) -> None:
    with pytest.raises(Invalid, match="url"):
        check_url(url, ())


@pytest.mark.parametrize(
    ("url", "rule"),
    [("https://example.com:99999", "port"), ("https://example.com:0/", "port"), ("https://exa mple.com", "host")],
)
def test_an_address_that_nobody_could_call_is_refused_when_it_is_written_down(url: str, rule: str) -> None:
    with pytest.raises(Invalid, match=f"webhook_endpoint.url: the {rule}"):
        check_url(url, ())


async def test_the_service_looks_at_the_address_too(service: RunningService) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="url") as refused:
        await create(service, "https://10.0.0.1/")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "event_types",
    [
        ["nonsense"],
        ["dangol.profile.v1.NoSuchEvent"],
        ["dangol.*.v1"],
        ["dangol.profiles.*"],
        ["dangol.profile.v1.ExportPart"],
    ],
)
async def test_an_event_that_does_not_exist_is_refused(service: RunningService, event_types: list[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="event_types"):
        await create(service, "https://example.com/", *event_types)


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("100.64.0.1", False),
        ("169.254.169.254", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False),
        ("::1", False), ("::", False), ("fe80::1%eth0", False), ("fd12::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", False), ("::127.0.0.1", False), ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False), ("2001:db8::1", False), ("192.0.2.1", False), ("198.18.0.1", False),
    ],
)  # fmt: skip
def test_only_the_open_internet_may_be_called(address: str, is_open: bool) -> None:
    assert may_be_called(address, ()) is is_open


async def test_a_name_that_leads_inside_is_never_called(receiver: Receiver, path: str) -> None:
    """The check is made on the address that is connected to, not on the name."""
    outside = WebhookClient(timeout_seconds=2, allowed=())
    before = len(receiver.received)
    for host in ("localhost", "127.0.0.1", "[::1]"):
        outcome = await outside.post(f"http://{host}:{receiver.port}{path}", b"{}", {})
        assert (outcome.status, outcome.error) == (0, "the address is not open to the internet")
    assert len(receiver.received) == before
    inside = WebhookClient(timeout_seconds=2, allowed=LOOPBACK)
    assert (await inside.post(receiver.url(path), b"{}", {})).is_success


def certificate(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make a certificate of a host that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(key, hashes.SHA256()), key


@pytest.mark.parametrize(("name", "is_trusted", "succeeds"), [
    ("localhost", True, True), ("localhost", False, False), ("example.com", True, False),
])  # fmt: skip
async def test_tls_asks_for_the_certificate_of_the_name(
    tmp_path: Path, name: str, is_trusted: bool, succeeds: bool
) -> None:
    """Although the connection goes to an address: a certificate of another name, or of nobody's signing, is refused."""
    signed, key = certificate(name)
    file = tmp_path / "certificate.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(signed.public_bytes(encoding) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trusted = ssl.create_default_context(cafile=str(file)) if is_trusted else None
    nets = (*LOOPBACK, ip_network("::1/128"))
    client = WebhookClient(timeout_seconds=5, allowed=nets, trusted=trusted)
    outcome = await client.post(f"https://localhost:{port}/tls", b"{}", {"webhook-id": "1"})
    server.close()
    assert outcome.is_success is succeeds
    assert [each.headers["host"] for each in receiver.received] == [f"localhost:{port}"] * succeeds


async def test_a_receiver_that_does_not_answer_is_left_alone(receiver: Receiver, path: str) -> None:
    receiver.answers[path] = ["never"]
    outcome = await WebhookClient(timeout_seconds=0.2, allowed=LOOPBACK).post(receiver.url(path), b"{}", {})
    assert outcome == Outcome(0, "no answer within 0.2 seconds")


def test_waits_grow_are_spread_and_end() -> None:
    """Three days with the defaults; what the receiver asks for is heeded."""
    delays = Settings.model_fields["webhook_retry_seconds"].default
    waits = [wait_seconds(delays, attempts, Outcome(500), 0.5) for attempts in range(1, 11)]
    assert waits == [*delays, None]
    assert 2.9 * 86_400 < sum(delays) < 3.3 * 86_400
    assert (wait_seconds(delays, 2, Outcome(500), 0), wait_seconds(delays, 2, Outcome(500), 1)) == (240, 360)
    assert wait_seconds(delays, 1, Outcome(429, retry_after_seconds=120), 0.5) == 120
