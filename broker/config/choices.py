"""The settings that are one word of a few."""

from __future__ import annotations

from enum import StrEnum


class PleoEnvironment(StrEnum):
    """Which Pleo. Each has client credentials of its own."""

    STAGING = "staging"
    PRODUCTION = "production"
    CUSTOM = "custom"


class ClientAuth(StrEnum):
    """How the client authenticates at the token endpoint (RFC 6749 §2.3.1)."""

    BASIC = "basic"
    BODY = "body"


class LogFormat(StrEnum):
    """For machines or for people."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
