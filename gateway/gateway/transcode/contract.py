# SPDX-License-Identifier: Apache-2.0
"""The contract, read from the descriptor set at start: methods, HTTP bindings, options and comments."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files

from dangol.options.v1 import options_pb2
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_EVERYWHERE = "operations"
"""The package that every service serves."""
UNAVAILABLE_SERVICES = "unavailable_services"
"""Field in which a gathered answer says which services are missing from it."""
_VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True)
class Binding:
    """One way of calling a method over HTTP."""

    verb: str
    template: str
    body: str
    """Name of the field that the body holds, `*` for all fields that the path does not bind, empty for none."""
    response_body: str
    """Name of the field that the answer is; empty for all of it."""


@dataclass(frozen=True)
class Method:
    """One RPC that is open to HTTP."""

    descriptor: MethodDescriptor
    bindings: tuple[Binding, ...]
    scope: str
    visitor: bool
    is_gathered: bool = False
    """True when all services are asked, and their answers are one."""
    gather_first: str = ""
    """Of a gathered method: the service that is asked before the others; empty is none."""
    completion: Completion | None = None
    """What another service adds to the answer."""

    @property
    def name(self) -> str:
        """Name of the RPC."""
        return self.descriptor.name

    @property
    def service(self) -> str:
        """Full name of the proto service."""
        return self.descriptor.containing_service.full_name

    @property
    def path(self) -> str:
        """Path of the method in gRPC."""
        return f"/{self.service}/{self.name}"

    @property
    def package(self) -> str:
        """Short name of the package: `profile`, `operations`…"""
        return self.service.split(".")[1]

    def served_by(self, services: Sequence[str]) -> tuple[str, ...]:
        """Return which of all services serve the method, by their short names."""
        return tuple(services) if self.package == _EVERYWHERE else (self.package,)

    @property
    def is_idempotent(self) -> bool:
        """True when calling twice is the same as calling once."""
        return any(binding.verb == "GET" for binding in self.bindings)

    @cached_property
    def request_class(self) -> type[Message]:
        """Class of the request."""
        return GetMessageClass(self.descriptor.input_type)

    @cached_property
    def response_class(self) -> type[Message]:
        """Class of the response."""
        return GetMessageClass(self.descriptor.output_type)

    def response_part(self, binding: Binding) -> Descriptor:
        """Return the message type that a binding answers with."""
        output: Descriptor = self.descriptor.output_type
        return message_of(output.fields_by_name[binding.response_body]) if binding.response_body else output


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the message type of a field that has one."""
    if field.message_type is None:
        raise ValueError(f"{field.full_name} is not a message")
    return field.message_type


@dataclass(frozen=True)
class Completion:
    """What another service adds to an answer; the names mean what they mean in the option."""

    method: Method
    hand_on: str
    into: tuple[str, ...]
    source: str
    key: str


@dataclass(frozen=True)
class Contract:
    """Every method that is open to HTTP, and the comments of everything."""

    methods: Sequence[Method]
    comments: Mapping[str, str]
    """Comment by full name of message, field, enum value, service or method."""


def load() -> Contract:
    """Read the contract from the installed package `dangol`."""
    return read((files("dangol") / "descriptors.binpb").read_bytes())


def read(descriptor_set: bytes) -> Contract:
    """Read a contract from a serialised `FileDescriptorSet` whose generated modules are installed."""
    described = FileDescriptorSet.FromString(descriptor_set)
    methods: list[Method] = []
    comments: dict[str, str] = {}
    for file in described.file:
        if not file.package.startswith("dangol."):
            continue
        comments.update(_comments(file))
        if file.service:
            # The generated module brings the message classes into the pool.
            importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
            methods.extend(_methods(file))
    by_name = {method.descriptor.full_name: method for method in methods}
    return Contract(tuple(_completed(method, by_name) for method in methods), comments)


def _methods(file: FileDescriptorProto) -> Iterator[Method]:
    for service in file.service:
        found = descriptor_pool.Default().FindServiceByName(f"{file.package}.{service.name}")
        for method in found.methods:
            options = method.GetOptions()
            if not options.HasExtension(annotations_pb2.http):
                continue
            scope = options.Extensions[options_pb2.scope]
            if not scope:
                raise ValueError(f"{method.full_name} is open to HTTP and has no (dangol.options.v1.scope)")
            bindings = tuple(_bindings(options.Extensions[annotations_pb2.http]))
            is_gathered = options.Extensions[options_pb2.gather]
            if is_gathered and UNAVAILABLE_SERVICES not in method.output_type.fields_by_name:
                raise ValueError(f"{method.full_name} is gathered, and its answer has no {UNAVAILABLE_SERVICES}")
            visitor, first = options.Extensions[options_pb2.visitor], options.Extensions[options_pb2.gather_first]
            yield Method(method, bindings, scope, visitor, is_gathered, first)


def _completed(method: Method, by_name: Mapping[str, Method]) -> Method:
    """Add to a method what completes its answer, unless the two do not fit together."""
    options = method.descriptor.GetOptions()
    if not options.HasExtension(options_pb2.completion):
        return method
    option = options.Extensions[options_pb2.completion]
    try:
        completion = Completion(
            by_name[option.method], option.hand_on, tuple(option.into.split(".")), option.source, option.key
        )
        fits = _fits(completion, method)
    except KeyError as error:
        raise ValueError(f"{method.descriptor.full_name} is completed by {error}, which is not there") from error
    if not fits:
        raise ValueError(f"{method.descriptor.full_name} and {option.method}, which completes it, do not fit together")
    return replace(method, completion=completion)


def _fits(completion: Completion, method: Method) -> bool:
    """Tell whether every field that is taken over is of one type on both sides; raises `KeyError` for a missing one."""
    answer: Descriptor = method.descriptor.output_type
    other = completion.method.descriptor
    pairs = [(answer.fields_by_name[completion.hand_on], other.input_type.fields_by_name[completion.hand_on])]
    element = answer
    for name in completion.into:
        element = message_of(element.fields_by_name[name])
    source = message_of(other.output_type.fields_by_name[completion.source])
    pairs += [(element.fields_by_name[field.name], field) for field in source.fields if field.is_repeated]
    keys = (element.fields_by_name[completion.key], source.fields_by_name[completion.key])
    return (
        UNAVAILABLE_SERVICES in answer.fields_by_name
        and keys[0].type == keys[1].type
        and all(a.is_repeated and b.is_repeated and a.message_type is b.message_type for a, b in pairs)
    )


def _bindings(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    verb = rule.WhichOneof("pattern")
    if verb in _VERBS:
        yield Binding(verb.upper(), getattr(rule, verb), rule.body, rule.response_body)
    elif verb == "custom":
        yield Binding(rule.custom.kind.upper(), rule.custom.path, rule.body, rule.response_body)
    for additional in rule.additional_bindings:
        yield from _bindings(additional)


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    texts = {
        tuple(at.path): _clean(at.leading_comments or at.trailing_comments) for at in file.source_code_info.location
    }
    for path, name in _names(file):
        if texts.get(path):
            yield name, texts[path]


Path = tuple[int, ...]


def _names(file: FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    """Pair the paths of source info (field numbers of `FileDescriptorProto`) with full names."""
    yield (2,), file.package
    for i, message in enumerate(file.message_type):
        yield from _names_in_message((4, i), f"{file.package}.{message.name}", message)
    for i, enum in enumerate(file.enum_type):
        yield from _names_in_enum((5, i), f"{file.package}.{enum.name}", enum)
    for i, service in enumerate(file.service):
        yield from _names_in_service((6, i), f"{file.package}.{service.name}", service)


def _names_in_message(path: Path, name: str, message: DescriptorProto) -> Iterator[tuple[Path, str]]:
    yield path, name
    for i, field in enumerate(message.field):
        yield (*path, 2, i), f"{name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _names_in_message((*path, 3, i), f"{name}.{nested.name}", nested)
    for i, enum in enumerate(message.enum_type):
        yield from _names_in_enum((*path, 4, i), f"{name}.{enum.name}", enum)


def _names_in_enum(path: Path, name: str, enum: EnumDescriptorProto) -> Iterator[tuple[Path, str]]:
    yield path, name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), f"{name}.{value.name}"


def _names_in_service(path: Path, name: str, service: ServiceDescriptorProto) -> Iterator[tuple[Path, str]]:
    yield path, name
    for i, method in enumerate(service.method):
        yield (*path, 2, i), f"{name}.{method.name}"


def _clean(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.strip().splitlines())
