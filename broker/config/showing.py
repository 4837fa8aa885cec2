"""How a setting is shown to people: defaults in the table, values at start. Never a secret."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlencode

from broker.config.addresses import without_secrets
from broker.config.sources import SecretSource


def shown(variable: str, value: object) -> str:
    """Returns a value as its variable would be written, addresses without password and query."""
    match value:
        case None:
            text = ""
        case bool():
            text = str(value).lower()
        case timedelta():
            unit = timedelta(days=1) if variable.endswith("_DAYS") else timedelta(seconds=1)
            text = f"{value / unit:g}"
        case SecretSource():
            text = _source(value)
        case tuple():
            text = _several(value)
        case _:
            text = str(value)
    return without_secrets(text) if "://" in text and " " not in text else text


def _source(source: SecretSource) -> str:
    if source.path is not None or not source.variable.endswith("_URL"):
        return repr(source)
    return without_secrets(source.read().reveal())  # an address whose password is left out


def _several(values: tuple[object, ...]) -> str:
    pairs = [each for each in values if isinstance(each, tuple)]
    return urlencode(pairs) if pairs else " ".join(shown("", each) for each in values)
