# SPDX-License-Identifier: Apache-2.0
"""The contract: fresh, linted, complete."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from dangol.options.v1 import options_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

ROOT = Path(__file__).parents[2]
VERBS = ("get", "post", "put", "patch", "delete")


def ours() -> list[FileDescriptorProto]:
    """Read our own files from the descriptor set that the gateway uses."""
    data = (ROOT / "proto/gen/dangol/descriptors.binpb").read_bytes()
    return [f for f in FileDescriptorSet.FromString(data).file if f.package.startswith("dangol.")]


def methods() -> Iterator[tuple[str, MethodDescriptorProto]]:
    for file in ours():
        for service in file.service:
            for method in service.method:
                yield f"{file.package}.{service.name}.{method.name}", method


def test_generated_code_is_fresh() -> None:
    """`make proto` was run after the last change of a proto file."""
    result = subprocess.run(
        [sys.executable, "proto/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_contract_is_clean() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("buf"), "lint"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("name", "method"), list(methods()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_method_says_who_may_call_it_and_where(name: str, method: MethodDescriptorProto) -> None:
    options = method.options
    assert options.Extensions[options_pb2.scope].count(".") == 1
    assert options.Extensions[annotations_pb2.http].WhichOneof("pattern") in VERBS


def test_no_two_methods_share_a_route() -> None:
    routes: Counter[tuple[str, str]] = Counter()
    for _, method in methods():
        rule = method.options.Extensions[annotations_pb2.http]
        for binding in (rule, *rule.additional_bindings):
            verb = binding.WhichOneof("pattern")
            routes[verb, getattr(binding, verb)] += 1
    assert [route for route, count in routes.items() if count > 1] == []


def test_a_method_about_a_customer_says_what_for() -> None:
    """So that it passes the gate of consent and leaves a row in the access log; only reading that log does not."""
    fields = {
        f".{file.package}.{message.name}": {field.name for field in message.field}
        for file in ours()
        for message in file.message_type
    }
    silent = {
        name
        for name, method in methods()
        if "profile" in fields[method.input_type] and not method.options.Extensions[options_pb2.purpose]
    }
    assert silent == {"dangol.operations.v1.AccessLogService.ListAccesses"}


def test_personal_data_is_marked() -> None:
    """Fields that hold a customer's own words or names carry the `pii` option."""
    personal = {"profile", "text", "traits", "properties"}
    # Reasons and items are of the shop; a certificate is checked as it is, and names nobody.
    others = ("Reason", "Item", "ErasureCertificate", "VerifyCertificateRequest")
    for file in ours():
        for message in file.message_type:
            for field in message.field:
                is_text_or_struct = field.type_name in ("", ".google.protobuf.Struct")
                if field.name in personal and is_text_or_struct and message.name not in others:
                    if file.package == "dangol.events.v1":
                        continue
                    assert field.options.Extensions[options_pb2.pii], f"{file.package}.{message.name}.{field.name}"


def test_files_of_google_are_theirs() -> None:
    """The copies beside our protos are the ones that the generated code of the library was made from."""
    import google.api

    for path in (ROOT / "proto/google/api").glob("*.proto"):
        assert path.read_bytes() == (Path(next(iter(google.api.__path__))) / path.name).read_bytes()
