"""Reads the API from its protos, each element with its comment, for the tests of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from google.api import field_behavior_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from protos.generate import PROTOS, image

Described = (
    DescriptorProto
    | EnumDescriptorProto
    | EnumValueDescriptorProto
    | FieldDescriptorProto
    | MethodDescriptorProto
    | ServiceDescriptorProto
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """A part of the API: `name` is its full name without the package."""

    name: str
    what: Described
    comment: str

    @property
    def words(self) -> str:
        """The comment, however its lines are broken."""
        return " ".join(self.comment.split())


@cache
def api() -> tuple[Element, ...]:
    """Returns every message, field, enum, value, service and call of the API."""
    files = FileDescriptorSet.FromString(image(PROTOS)).file
    return tuple(
        element for file in files if file.package == "broker.v1" for element in _elements(file)
    )


def calls() -> dict[str, tuple[Element, MethodDescriptorProto]]:
    """Returns the calls by name, as `TokenService/GetAccessToken`."""
    return {
        element.name.replace(".", "/"): (element, element.what)
        for element in api()
        if isinstance(element.what, MethodDescriptorProto)
    }


def fields() -> dict[str, tuple[Element, FieldDescriptorProto]]:
    """Returns the fields by name, as `GetAccessTokenRequest.tenant`."""
    return {
        element.name: (element, element.what)
        for element in api()
        if isinstance(element.what, FieldDescriptorProto)
    }


def reasons() -> dict[str, Element]:
    """Returns the values of ErrorReason without their prefix, but for the unspecified one."""
    prefix = "ErrorReason.ERROR_REASON_"
    found = {each.name.removeprefix(prefix): each for each in api() if each.name.startswith(prefix)}
    return {name: each for name, each in found.items() if name != "UNSPECIFIED"}


def behaviors(field: FieldDescriptorProto) -> list[str]:
    """Returns the names of a field's `google.api.field_behavior`."""
    return [
        field_behavior_pb2.FieldBehavior.Name(number)
        for option, numbers in field.options.ListFields()
        if option.full_name == "google.api.field_behavior"
        for number in numbers
    ]


def _elements(file: FileDescriptorProto) -> Iterator[Element]:
    comments = {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
    }
    for path, name, what in _below((), "", file):
        yield Element(name=name, what=what, comment=comments.get(path, ""))


def _below(
    path: tuple[int, ...], name: str, parent: Described | FileDescriptorProto
) -> Iterator[tuple[tuple[int, ...], str, Described]]:
    """Gives all below an element: its path, as source_code_info counts; its name; itself."""
    for tag, parts in _parts(parent):
        for index, part in enumerate(parts):
            here = (*path, tag, index)
            full = f"{name}.{part.name}".lstrip(".")
            yield here, full, part
            yield from _below(here, full, part)


def _parts(what: Described | FileDescriptorProto) -> list[tuple[int, list[Described]]]:
    """Returns what an element consists of, with the number of the field that holds it."""
    match what:
        case FileDescriptorProto():
            return [(4, [*what.message_type]), (5, [*what.enum_type]), (6, [*what.service])]
        case DescriptorProto():
            return [(2, [*what.field]), (3, [*what.nested_type]), (4, [*what.enum_type])]
        case EnumDescriptorProto():
            return [(2, [*what.value])]
        case ServiceDescriptorProto():
            return [(2, [*what.method])]
        case _:
            return []
