# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: who may call, what a request must look like, and what an error means, for every method alike."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import grpc
from dangol.options.v1 import options_pb2
from google.protobuf import any_pb2, descriptor_pool, duration_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from chassis import errors, telemetry
from chassis.calls import calling
from chassis.consent import Use, use_of
from chassis.database import lost_connection
from chassis.gate import Gate
from chassis.keys import Keyring
from chassis.masking import mask
from chassis.settings import ServiceSettings
from chassis.tokens import Caller, TokenSigner
from chassis.validation import validate

log = logging.getLogger(__name__)

STATUS_OF: Mapping[type[errors.DangolError], grpc.StatusCode] = {
    errors.DangolError: grpc.StatusCode.UNKNOWN,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
"""The one table from meanings to gRPC codes; a test asserts that it is complete."""

DEFAULT_DEADLINE_S = 30.0
MAX_MESSAGE_BYTES = 16 * 2**20
ERROR_DOMAIN = "dangol"

_OPEN_SERVICES = ("grpc.health.v1.", "grpc.reflection.")

Handler = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


@dataclass(frozen=True)
class Servicer:
    """One proto service and what implements it."""

    full_name: str
    """Such as `dangol.profile.v1.ProfileService`."""
    add: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_…Servicer_to_server`."""
    implementation: Any


class Authenticator:
    """Finds out who is calling: a signed caller token, or an API key."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._tokens = TokenSigner(settings.token_key.get_secret_value())
        self._keys = Keyring.from_settings(settings.api_keys, local=settings.local)

    def caller(self, metadata: Sequence[tuple[str, str | bytes]]) -> Caller:
        """Return the caller behind the metadata; raises `Unauthenticated`."""
        for name, value in metadata:
            if name == "authorization" and isinstance(value, str):
                scheme, _, secret = value.partition(" ")
                if scheme.lower() == "bearer" and secret:
                    return self._of(secret.strip())
        raise errors.Unauthenticated("send metadata `authorization: Bearer <caller token or secret API key>`")

    def _of(self, secret: str) -> Caller:
        key = self._keys.find(secret)
        if key is None:
            return self._tokens.verify(secret)
        if key.kind != "secret":
            raise errors.PermissionDenied("a write key may not call services")
        return Caller(key.id, key.scopes)


class Door(grpc.aio.ServerInterceptor):
    """What happens around every call: authenticate, authorise, validate, gate, mask, time, translate errors."""

    def __init__(
        self,
        scopes: Mapping[str, str],
        authenticator: Authenticator,
        uses: Mapping[str, Use] | None = None,
        gate: Gate | None = None,
        personal: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`personal` names further traits that are masked."""
        self._scopes = scopes
        self._authenticator = authenticator
        self._uses = uses or {}
        self._gate = gate
        self._personal = personal
        self.open = False
        """False while the service still opens what its methods need."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Wrap the handler of a method of ours."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method[1:].startswith(_OPEN_SERVICES):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            self._wrap(handler_call_details.method, cast(Handler, handler.unary_unary)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _wrap(self, method: str, call: Handler) -> Handler:
        scope = self._scopes[method]
        # /dangol.profile.v1.AgentService/GetInteraction: whatever its own scope, what it answers is of svc-profile.
        sees_personal_data = f"{method.split('.')[1]}.pii"

        async def behind_the_door(request: Message, context: grpc.aio.ServicerContext) -> Any:
            started = time.perf_counter()
            metadata = list(context.invocation_metadata() or ())
            code = "OK"
            try:
                with telemetry.span(method[1:], SpanKind.SERVER, _carrier(metadata)):
                    caller = self._admit(metadata, scope)
                    validate(request)
                    with calling(caller):
                        answering = self._answer(method, caller, request, partial(call, request, context))
                        answer = await asyncio.wait_for(answering, _time_left(context))
                    return answer if caller.may(sees_personal_data) else mask(answer, self._personal())
            except Exception as error:  # the one place where errors become statuses
                status = status_of(error)
                code = code_pb2.Code.Name(status.code)
                if code in ("INTERNAL", "UNKNOWN"):
                    log.exception("%s failed", method)
                await context.abort_with_status(rpc_status.to_status(status))
            finally:
                telemetry.REQUEST_SECONDS.labels(method, code).observe(time.perf_counter() - started)

        return behind_the_door

    async def _answer(self, method: str, caller: Caller, request: Message, call: Callable[[], Awaitable[Any]]) -> Any:
        use = self._uses.get(method)
        if use is None or self._gate is None:
            return await call()
        return await self._gate.pass_through(use, method[1:].replace("/", "."), caller, request, call)

    def _admit(self, metadata: Sequence[tuple[str, str | bytes]], scope: str) -> Caller:
        if not self.open:
            raise errors.Unavailable("the service is starting", retry_after_seconds=1)
        caller = self._authenticator.caller(metadata)
        if not caller.may(scope):
            raise errors.PermissionDenied(f"the caller lacks the scope {scope}", metadata={"scope": scope})
        return caller


def status_of(error: Exception) -> status_pb2.Status:
    """Translate an error into a status with details; an unforeseen one becomes INTERNAL without any."""
    if isinstance(error, TimeoutError):
        return status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="the deadline has passed")
    if not isinstance(error, errors.DangolError) and lost_connection(error):
        error = errors.Unavailable("a store cannot be reached now", retry_after_seconds=1)
    if not isinstance(error, errors.DangolError):
        return status_pb2.Status(code=code_pb2.INTERNAL, message="internal error")
    number, _ = STATUS_OF[type(error)].value
    return status_pb2.Status(code=number, message=error.message, details=list(_details(error)))


def _details(error: errors.DangolError) -> Iterator[any_pb2.Any]:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN, metadata=error.metadata)
    yield _pack(info)
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.rule) for v in error.violations
        ]
        yield _pack(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration(seconds=error.retry_after_seconds)
        yield _pack(error_details_pb2.RetryInfo(retry_delay=delay))


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _carrier(metadata: Sequence[tuple[str, str | bytes]]) -> dict[str, str]:
    return {
        name: value
        for name, value in metadata
        if name in ("traceparent", "tracestate", "baggage") and isinstance(value, str)
    }


def _time_left(context: grpc.aio.ServicerContext) -> float:
    left = context.time_remaining()
    return DEFAULT_DEADLINE_S if left is None else min(left, 600.0)


def scopes_of(servicers: Sequence[Servicer]) -> dict[str, str]:
    """Read the scope of every method from the contract; a method without one is a mistake that must not start."""
    scopes = {}
    for path, method in _methods_of(servicers):
        scope = method.GetOptions().Extensions[options_pb2.scope]
        if not scope:
            raise ValueError(f"{method.full_name} has no (dangol.options.v1.scope)")
        scopes[path] = scope
    return scopes


def uses_of(servicers: Sequence[Servicer]) -> dict[str, Use]:
    """Read from the contract which methods use personal data, and what for."""
    return {path: use for path, method in _methods_of(servicers) if (use := use_of(method))}


def _methods_of(servicers: Sequence[Servicer]) -> Iterator[tuple[str, MethodDescriptor]]:
    for servicer in servicers:
        service = descriptor_pool.Default().FindServiceByName(servicer.full_name)
        for method in service.methods:
            yield f"/{servicer.full_name}/{method.name}", method


class RpcServer:
    """The gRPC server of one process, with health and reflection."""

    def __init__(
        self,
        settings: ServiceSettings,
        servicers: Sequence[Servicer],
        gate: Gate | None = None,
        personal: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Without a `gate` nobody's consent is asked for: only for what holds no personal data."""
        self._settings = settings
        self._health = health.aio.HealthServicer()
        self._door = Door(scopes_of(servicers), Authenticator(settings), uses_of(servicers), gate, personal)
        self._server = grpc.aio.server(
            interceptors=[self._door],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
                # Callers ping every 30 seconds while they wait; without this, gRPC takes that for abuse.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.max_connection_age_ms", 300_000),
                ("grpc.max_connection_age_grace_ms", 30_000),
            ],
        )
        for servicer in servicers:
            servicer.add(servicer.implementation, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [servicer.full_name for servicer in servicers]
        self._names = ["", *names]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = 0

    async def start(self) -> None:
        """Listen; raises OSError that names the port when it is taken."""
        address = f"{self._settings.grpc_host}:{self._settings.port}"
        try:
            credentials = self._credentials()
            if credentials:
                self.port = self._server.add_secure_port(address, credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: the port is taken") from error
        await self.set_ready(False)
        await self._server.start()

    def open(self) -> None:
        """Let calls in; until then they are answered UNAVAILABLE."""
        self._door.open = True

    async def set_ready(self, ready: bool) -> None:
        """Say through `grpc.health.v1` whether calls are welcome."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, finish those in hand, close."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _credentials(self) -> grpc.ServerCredentials | None:
        certificate, key = self._settings.grpc_tls_certificate, self._settings.grpc_tls_key
        if certificate is None or key is None:
            return None
        authority = self._settings.grpc_tls_client_ca
        return grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            root_certificates=authority.read_bytes() if authority else None,
            require_client_auth=authority is not None,
        )
