"""Answers of the broker as they are shown: the proto's JSON, or lines for people. No secret."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.cli.showing import moment, show_fields, show_json
from broker.v1.grant_service_pb2 import Grant


def document(message: Message) -> dict[str, Any]:
    """Returns a message as JSON has it, with the proto's names; what is false or empty too."""
    read: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return read


def time_of(message: Message, field: str) -> str:
    """Returns a time as people read it; empty where it is absent."""
    if not message.HasField(field):
        return ""
    time: Timestamp = getattr(message, field)
    return moment(time.ToDatetime(tzinfo=UTC))


def state_of(grant: Grant) -> str:
    """Returns the name of a grant's state, also of one that this release does not know."""
    known = Grant.State.DESCRIPTOR.values_by_number.get(grant.state)
    return known.name.removeprefix("STATE_") if known else str(int(grant.state))


def show_grant(grant: Grant, *, as_json: bool) -> None:
    """Prints one grant."""
    if as_json:
        show_json(document(grant))
    else:
        show_fields(_fields(grant))


def _fields(grant: Grant) -> Mapping[str, str]:
    return {
        "tenant": grant.tenant,
        "state": state_of(grant),
        "reauth": _reauth(grant),
        "subject": grant.subject,
        "scopes": " ".join(grant.scopes),
        "generation": str(grant.generation),
        "expires": time_of(grant, "expire_time"),
        "renewal due": time_of(grant, "renew_time"),
        "last refresh": time_of(grant, "last_refresh_time"),
        "last used": time_of(grant, "last_used_time"),
        "created": time_of(grant, "create_time"),
        "changed": time_of(grant, "update_time"),
        "failures in a row": str(grant.consecutive_failures or ""),
    }


def _reauth(grant: Grant) -> str:
    if not grant.HasField("reauth"):
        return ""
    read = document(grant.reauth)
    cause = str(read["cause"]).removeprefix("CAUSE_")
    words = (cause, f"since {time_of(grant.reauth, 'since_time')}", grant.reauth.provider_error)
    return ", ".join(filter(None, words))
