"""The alerts and the dashboard, and what their queries ask of Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.source import ROOT

RULES: Final = ROOT / "deploy" / "alerts" / "token-broker.rules.yaml"
RULE_TESTS: Final = ROOT / "deploy" / "alerts" / "token-broker.test.yaml"
DASHBOARD: Final = ROOT / "deploy" / "dashboards" / "token-broker.json"

# Prometheus itself adds them to whatever it scrapes.
SCRAPED: Final = frozenset({"job", "instance"})

_SELECTED: Final = re.compile(r"\b((?:token_broker|process)_\w+)(?:\{([^}]*)\})?")
_MATCHED: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED: Final = re.compile(r"\bby \(([^)]*)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """A series that a query names."""

    name: str
    labels: frozenset[str]
    """Those that it matches or groups by."""

    exactly: tuple[tuple[str, str], ...]
    """Labels that it wants to have one value."""


@dataclass(slots=True)
class Exposed:
    """What `/metrics` shows: names of samples, and with which labels and values each was seen."""

    names: set[str] = field(default_factory=set)
    values: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    gauges: set[str] = field(default_factory=set)
    families: set[str] = field(default_factory=set)
    """Names of metrics, without what a sample's name has at its end."""

    def take(self, families: Iterable[Metric]) -> None:
        """Adds what is shown there."""
        for family in families:
            self.names |= set(_sample_names(family))
            if not family.name.endswith("_created"):  # made by the client library, of no interest
                self.families.add(family.name)
            if family.type == "gauge":
                self.gauges.add(family.name)
            for sample in family.samples:
                for label, value in sample.labels.items():
                    self.values.setdefault((sample.name, label), set()).add(value)

    def take_text(self, text: str) -> None:
        """Adds what was answered."""
        self.take(text_string_to_metric_families(text))

    def lacks(self, query: str) -> list[str]:
        """Returns what a query asks for in vain."""
        return [lack for each in selected(query) for lack in self._lacks(each)]

    def _lacks(self, each: Selected) -> Iterator[str]:
        if each.name not in self.names:
            yield f"no metric {each.name}"
            return
        for label in each.labels - SCRAPED:
            if (each.name, label) not in self.values:
                yield f"{each.name} has no label {label}"
        for label, value in each.exactly:
            seen = self.values.get((each.name, label), set())
            # Series of counters may begin when there is something to count.
            if each.name in self.gauges and label not in SCRAPED and value not in seen:
                yield f"{each.name} is never {label}={value}"


def _sample_names(family: Metric) -> Iterator[str]:
    match family.type:
        case "counter":
            yield f"{family.name}_total"
        case "histogram":
            yield from (f"{family.name}_{part}" for part in ("bucket", "count", "sum"))
        case _:
            yield family.name


def selected(query: str) -> list[Selected]:
    """Returns the series of a query, each with the labels that the query groups them by."""
    grouped = {
        label.strip() for labels in _GROUPED.findall(query) for label in labels.split(",") if label
    }
    return [_selected(name, matchers, grouped) for name, matchers in _SELECTED.findall(query)]


def _selected(name: str, matchers: str, grouped: set[str]) -> Selected:
    matched = _MATCHED.findall(matchers)
    return Selected(
        name=name,
        labels=frozenset({label for label, _, _ in matched} | grouped),
        exactly=tuple((label, value) for label, operator, value in matched if operator == "="),
    )


def alerts() -> list[Mapping[str, Any]]:
    """Returns the alerts, as the file has them."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[Mapping[str, Any]] = group["rules"]
    return rules


def dashboard_queries() -> list[str]:
    """Returns the queries of all panels."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]
