"""Reads what `import` takes over: NDJSON, each line checked by itself. Calls nobody.

What is wrong with a line is said by field, and never what the field held: it may be a token (law
7). That goes for names of fields too, and for a tenant that is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from broker.domain.errors import FieldViolation
from broker.domain.fields import (
    check_access_token,
    check_expected_subject,
    check_refresh_token,
    check_scopes,
    check_tenant,
)
from broker.v1.grant_service_pb2 import ImportGrantRequest

_KINDS: Final[dict[str, type]] = {
    "tenant": str,
    "refresh_token": str,
    "access_token": str,
    "expire_time": str,
    "scopes": list,
    "expected_subject": str,
    "replace": bool,
}

_WORDS: Final = {str: "text", list: "a list of texts", bool: "true or false"}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GoodLine:
    """A line that can be imported. Has no repr: it holds a token."""

    number: int
    """From 1, as editors count."""

    request: ImportGrantRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that must be mended first."""

    number: int
    tenant: str
    """Empty where none could be read."""

    problems: tuple[str, ...]


Line: TypeAlias = GoodLine | BadLine


def read_lines(lines: Iterable[bytes]) -> list[Line]:
    """Reads all lines but blank ones.

    The second line of a tenant is bad: which one is meant? So is that of a refresh token: it is one
    customer's, and whoever uses it second is taken for a thief (RFC 9700 §4.14.2).
    """
    read: list[Line] = []
    first_lines: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found = _read_line(number, line)
            read.append(_only_once(found, first_lines))
    return read


def check_request(request: ImportGrantRequest) -> tuple[str, ...]:
    """Returns what is wrong with a request, as the broker would."""
    access_token, subject = request.access_token, request.expected_subject
    found = [
        check_tenant(request.tenant),
        check_refresh_token(request.refresh_token),
        check_access_token(access_token) if access_token else None,
        *check_scopes(request.scopes),
        check_expected_subject(subject) if subject else None,
        _check_expire_time(request),
    ]
    return tuple(f"{each.field}: {each.description}" for each in found if each is not None)


def _read_line(number: int, line: bytes) -> Line:
    try:
        fields = _fields(line)
        request = _request(fields)
    except _UnreadableError as error:
        return BadLine(number=number, tenant="", problems=error.problems)
    problems = check_request(request)
    if not problems:
        return GoodLine(number=number, request=request)
    tenant = "" if check_tenant(request.tenant) else request.tenant
    return BadLine(number=number, tenant=tenant, problems=problems)


class _UnreadableError(Exception):
    """A line is not what was agreed upon."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_pairs)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise _UnreadableError("must be one JSON object, in UTF-8") from None
    if not isinstance(fields, dict):
        raise _UnreadableError("must be one JSON object")
    if fields.keys() - _KINDS:
        raise _UnreadableError(f"holds a field that is none of {', '.join(_KINDS)}")
    problems = list(_wrong_kinds(fields))
    if problems:
        raise _UnreadableError(*problems)
    return fields


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise _UnreadableError("holds a field twice")
    return fields


def _wrong_kinds(fields: dict[str, Any]) -> Iterator[str]:
    for name, kind in _KINDS.items():
        value = fields.get(name)  # null is as if it were not there
        if value is not None and not _is_kind(value, kind):
            yield f"{name}: must be {_WORDS[kind]}"


def _is_kind(value: object, kind: type) -> bool:
    if isinstance(value, list):
        return kind is list and all(isinstance(each, str) for each in value)
    return isinstance(value, kind)


def _request(fields: dict[str, Any]) -> ImportGrantRequest:
    """Builds the request. Protobuf's errors quote what they do not like, so none goes on."""
    given = {name: value for name, value in fields.items() if value is not None}
    expire_time = given.pop("expire_time", None)
    try:
        request = ImportGrantRequest(**given)
    except (ValueError, TypeError):  # a lone surrogate
        raise _UnreadableError("must hold proper Unicode") from None
    if expire_time is not None:
        try:
            request.expire_time.FromJsonString(expire_time)
        except ValueError:
            expected = "expire_time: must be a time, as 2026-01-31T12:00:00Z (RFC 3339)"
            raise _UnreadableError(expected) from None
    return request


def _check_expire_time(request: ImportGrantRequest) -> FieldViolation | None:
    if request.HasField("expire_time") == bool(request.access_token):
        return None
    return FieldViolation(
        field="expire_time", description="must be set with an access token, and only then"
    )


def _only_once(line: Line, first_lines: dict[tuple[str, str], int]) -> Line:
    """Notes in which line each field and value is first; `first_lines` holds tokens."""
    if isinstance(line, BadLine):
        return line
    number, request = line.number, line.request
    once = {"tenant": request.tenant, "refresh_token": request.refresh_token}
    firsts = {field: first_lines.setdefault((field, once[field]), number) for field in once}
    problems = [f"{field}: is in line {n} too" for field, n in firsts.items() if n != number]
    if not problems:
        return line
    return BadLine(number=number, tenant=request.tenant, problems=tuple(problems))
