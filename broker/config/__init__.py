"""The settings: environment variables in, one frozen and checked value out.

    settings = ServeSettings.from_environ(os.environ)   # SettingsError: every problem at once

No value of a variable is in any error, warning or repr (law 7): `declaring` and `fields` say what
there is, `readers` what one variable may hold, `rules` what they must hold together.
"""

from broker.config.addresses import Address
from broker.config.choices import ClientAuth, LogFormat, LogLevel, PleoEnvironment
from broker.config.problems import Problem, SecretUnreadableError, SettingsError
from broker.config.settings import (
    ClientSettings,
    KeysSettings,
    MigrateSettings,
    RegistrationSettings,
    ServeSettings,
    Settings,
    unknown_names,
)
from broker.config.sources import SecretSource

__all__ = [
    "Address",
    "ClientAuth",
    "ClientSettings",
    "KeysSettings",
    "LogFormat",
    "LogLevel",
    "MigrateSettings",
    "PleoEnvironment",
    "Problem",
    "RegistrationSettings",
    "SecretSource",
    "SecretUnreadableError",
    "ServeSettings",
    "Settings",
    "SettingsError",
    "unknown_names",
]
