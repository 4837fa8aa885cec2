"""What is counted of facts, calls and health, and that no label grows without bound."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broker import __version__
from broker.domain.breaker import BreakerCause
from broker.domain.facts import (
    AttemptAnswered,
    BreakerMoved,
    EvidenceUnread,
    Fact,
    FlightEnded,
    FlightStarted,
    GrantRevoked,
    GuardMoved,
    ReauthBecameRequired,
    Source,
    TokenServed,
)
from broker.domain.grant import AttemptKind, GrantState, ReauthCause
from broker.domain.guard import GuardState
from broker.domain.history import AttemptOutcome
from broker.ops.health import CheckState, HealthSnapshot, Need
from broker.ops.lag import watch_lag
from broker.ops.metrics import Metrics
from broker.ports import Observer
from broker.rpc.observing import CallObserver
from broker.store.census import Census
from support.facts import KINDS, THE_TENANT, example_of
from support.service import fleet
from support.virtual_time import in_virtual_time

METHOD = "TokenService/GetAccessToken"
A_MOMENT = timedelta(milliseconds=3)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"token_broker_{name}", labels)


def counted(metrics: Metrics) -> dict[str, float]:
    """Returns our own series; those of the process change by themselves, creation times too."""
    return {
        f"{sample.name} {sorted(sample.labels.items())}": sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if family.name.startswith("token_broker_") and not sample.name.endswith("_created")
    }


def an_answer(error: str = "", **changes: object) -> AttemptAnswered:
    answer = AttemptAnswered(
        tenant=THE_TENANT,
        kind=AttemptKind.REFRESH,
        number=8,
        outcome=AttemptOutcome.UNKNOWN,
        error=error,
        http_status=None,
        duration=A_MOMENT,
    )
    return replace(answer, **changes)  # type: ignore[arg-type]  # names fields of any type


def call(calls: CallObserver, *, code: str = "OK", reason: str = "") -> None:
    calls.call_ended(method=METHOD, code=code, reason=reason, duration=A_MOMENT, tenant=None)


def observe_all(observer: Observer, *, tenant: str) -> None:
    """Tells of one fact of every kind, about this tenant."""
    for kind in KINDS:
        fact = example_of(kind)
        if hasattr(fact, "tenant"):
            fact = replace(fact, tenant=tenant)  # type: ignore[arg-type]  # not all have one
        observer.observe(fact)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fact_changes_what_is_counted(kind: type[Fact]) -> None:
    metrics = Metrics()
    before = counted(metrics)

    metrics.observe(example_of(kind))

    assert counted(metrics) != before


def test_no_tenant_is_in_anything_that_is_shown() -> None:
    metrics = Metrics()

    observe_all(metrics, tenant=THE_TENANT)

    assert THE_TENANT.encode() not in generate_latest(metrics.registry)


def test_other_tenants_make_no_further_series() -> None:
    metrics = Metrics()
    observe_all(metrics, tenant="acme")
    before = counted(metrics)

    observe_all(metrics, tenant="bjerg")

    assert counted(metrics).keys() == before.keys()


def test_tokens_are_counted_by_source_and_state() -> None:
    metrics = Metrics()

    for _ in range(2):
        metrics.observe(TokenServed(source=Source.MEMORY, degraded=False))
    metrics.observe(TokenServed(source=Source.FALLBACK, degraded=True))

    assert value(metrics, "tokens_served_total", source="memory", degraded="false") == 2
    assert value(metrics, "tokens_served_total", source="fallback", degraded="true") == 1


@in_virtual_time
async def test_each_caller_that_shares_a_flight_counts_as_a_token_served() -> None:
    metrics = Metrics()
    async with fleet() as ours:
        ours.connect_expired()
        one = ours.replica()
        one.told.listener = metrics.observe

        await asyncio.gather(*(one.call() for _ in range(3)))
        await one.get()

    seen = [
        value(metrics, "tokens_served_total", source=source.value, degraded="false")
        for source in Source
    ]
    assert seen == [1, 0, 3, 0]


def test_a_flight_is_in_flight_until_it_has_ended() -> None:
    metrics = Metrics()
    under_way = []
    ending = FlightEnded(
        tenant="acme", flight=1, waiters=30, duration=A_MOMENT, reason="GRANT_HELD"
    )

    for fact in (
        FlightStarted(tenant="acme", flight=1),
        FlightStarted(tenant="bjerg", flight=2),
        ending,
    ):
        metrics.observe(fact)
        under_way.append(value(metrics, "flights_in_flight"))

    assert under_way == [1, 2, 1]
    assert value(metrics, "flights_ended_total", reason="GRANT_HELD") == 1
    assert value(metrics, "flight_waiters_sum") == 30


@pytest.mark.parametrize(
    ("error", "label"),
    [("", ""), ("invalid_grant", "invalid_grant"), ("http_503", "http_503"), ("tls", "tls")],
)
def test_an_error_that_is_known_is_told_apart(error: str, label: str) -> None:
    metrics = Metrics()

    metrics.observe(an_answer(error))

    labels = {"kind": "refresh", "outcome": "unknown", "error": label}
    assert value(metrics, "attempts_answered_total", **labels) == 1


def test_errors_that_pleo_invents_share_one_series() -> None:
    metrics = Metrics()

    for number in range(50):
        metrics.observe(an_answer(f"error_invented_{number}"))

    labels = {"kind": "refresh", "outcome": "unknown", "error": "other"}
    assert value(metrics, "attempts_answered_total", **labels) == 50


@pytest.mark.parametrize(("status", "label"), [(200, "2xx"), (503, "5xx"), (None, "none")])
def test_the_time_that_pleo_took_is_told_by_class_of_status(status: int | None, label: str) -> None:
    metrics = Metrics()

    metrics.observe(an_answer(http_status=status))

    labels = {"kind": "refresh", "outcome": "unknown", "status": label}
    assert value(metrics, "provider_duration_seconds_sum", **labels) == 0.003


def test_what_was_never_sent_took_no_time() -> None:
    metrics = Metrics()

    metrics.observe(an_answer("dns", duration=timedelta(0)))

    assert not [name for name in counted(metrics) if "provider_duration_seconds_" in name]


@pytest.mark.parametrize("cause", ReauthCause)
def test_the_first_customer_lost_is_an_increase_from_zero(cause: ReauthCause) -> None:
    metrics = Metrics()
    seen = [value(metrics, "reauth_required_total", cause=cause.value.lower())]

    metrics.observe(ReauthBecameRequired(tenant="acme", cause=cause, provider_error=""))

    seen.append(value(metrics, "reauth_required_total", cause=cause.value.lower()))
    assert seen == [0, 1]


def test_revocations_are_counted() -> None:
    metrics = Metrics()

    metrics.observe(example_of(GrantRevoked))

    assert value(metrics, "grants_revoked_total") == 1


def breaker_shown(metrics: Metrics) -> set[str]:
    """Returns the causes for which refreshes are shown to wait, of all that there are."""
    shown = {
        each: value(metrics, "breaker_open", cause=each.value.lower()) for each in BreakerCause
    }
    assert set(shown.values()) <= {0, 1}
    return {cause.value for cause, is_open in shown.items() if is_open}


def guard_shown(metrics: Metrics) -> set[GuardState]:
    """Returns the states that the guard is shown in, of all that there are."""
    shown = {each: value(metrics, "guard_state", state=each.value.lower()) for each in GuardState}
    assert set(shown.values()) <= {0, 1}
    return {state for state, is_in_it in shown.items() if is_in_it}


def test_a_new_broker_shows_a_closed_breaker_and_a_guard_that_watches() -> None:
    metrics = Metrics()

    assert breaker_shown(metrics) == set()
    assert guard_shown(metrics) == {GuardState.WATCHING}
    assert value(metrics, "evidence_unread_total") == 0


@pytest.mark.parametrize("cause", BreakerCause)
def test_an_open_breaker_is_shown_with_its_cause_alone(cause: BreakerCause) -> None:
    metrics = Metrics()

    metrics.observe(BreakerMoved(cause=BreakerCause.RATE_LIMITED.value, code="http_429"))
    metrics.observe(BreakerMoved(cause=cause.value, code="invented"))

    assert breaker_shown(metrics) == {cause.value}


def test_a_breaker_that_closed_is_shown_open_no_more() -> None:
    metrics = Metrics()
    metrics.observe(BreakerMoved(cause=BreakerCause.CLIENT_REJECTED.value, code="invalid_client"))

    metrics.observe(BreakerMoved(cause="", code=""))

    assert breaker_shown(metrics) == set()


@pytest.mark.parametrize("state", GuardState)
def test_the_guard_is_shown_in_one_state_at_a_time(state: GuardState) -> None:
    metrics = Metrics()

    metrics.observe(GuardMoved(state=GuardState.HOLDING, by="", reason=""))
    metrics.observe(GuardMoved(state=state, by="ops@example.org", reason="OPS-17"))

    assert guard_shown(metrics) == {state}


def test_who_decided_and_why_is_in_no_metric() -> None:
    metrics = Metrics()

    metrics.observe(GuardMoved(state=GuardState.CONFIRMING, by="ops@example.org", reason="OPS-17"))

    shown = generate_latest(metrics.registry)
    assert b"ops@example.org" not in shown
    assert b"OPS-17" not in shown


def test_answers_that_nobody_weighed_are_counted() -> None:
    metrics = Metrics()

    for number in range(3):
        metrics.observe(EvidenceUnread(tenant=THE_TENANT, number=number))

    assert value(metrics, "evidence_unread_total") == 3


def test_calls_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()

    for reason, times in (("STORE_UNAVAILABLE", 1), ("", 2), ("GRANT_HELD", 3)):
        for _ in range(times):
            call(metrics, code="UNAVAILABLE", reason=reason)

    seen = [
        value(metrics, "calls_total", method=METHOD, code="UNAVAILABLE", reason=reason)
        for reason in ("STORE_UNAVAILABLE", "", "GRANT_HELD")
    ]
    assert seen == [1, 2, 3]
    assert value(metrics, "call_duration_seconds_count", method=METHOD) == 6


def test_a_short_call_is_told_from_a_shorter_one() -> None:
    metrics = Metrics()

    call(metrics)

    below = [
        value(metrics, "call_duration_seconds_bucket", method=METHOD, le=bound)
        for bound in ("0.0025", "0.005")
    ]
    assert below == [0, 1]


def test_health_is_shown_as_it_was_last_told() -> None:
    metrics = Metrics()
    postgres = CheckState(name="postgres", needed_for=frozenset({Need.SERVE}), is_good=True)
    redis = CheckState(name="redis", needed_for=frozenset())
    snapshot = HealthSnapshot(is_ready=True, is_draining=False, checks=(postgres, redis))

    metrics.health_changed(snapshot)
    metrics.health_changed(replace(snapshot, is_ready=False, is_draining=True))

    assert value(metrics, "ready") == 0
    assert value(metrics, "draining") == 1
    assert value(metrics, "dependency_up", dependency="postgres") == 1
    assert value(metrics, "dependency_up", dependency="redis") == 0


def test_what_is_held_is_read_when_somebody_looks() -> None:
    metrics = Metrics()
    holdings: list[str] = []
    metrics.watch_holdings(holdings)
    seen = [value(metrics, "attempts_held")]

    holdings += ["one", "two"]

    seen.append(value(metrics, "attempts_held"))
    assert seen == [0, 2]


def test_lines_lost_of_the_log_are_a_counter_that_is_read() -> None:
    metrics, lost = Metrics(), [2, 5, 5]
    metrics.watch_log(lambda: lost.pop(0))

    seen = [value(metrics, "log_lines_dropped_total") for _ in range(2)]

    assert seen == [2, 5]
    kind = b"# TYPE token_broker_log_lines_dropped_total counter"
    assert kind in generate_latest(metrics.registry)


def test_which_broker_this_is_can_be_read() -> None:
    assert value(Metrics(), "build_info", version=__version__) == 1


def test_two_brokers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()

    call(one)

    assert value(other, "calls_total", method=METHOD, code="OK", reason="") == 0


def test_the_process_itself_is_described() -> None:
    shown = generate_latest(Metrics().registry).decode()

    assert "python_info{" in shown
    assert "python_gc_collections_total{" in shown


def test_what_is_shown_can_be_read_back() -> None:
    metrics = Metrics()
    observe_all(metrics, tenant="acme")

    shown = generate_latest(metrics.registry).decode()

    families = {family.name for family in text_string_to_metric_families(shown)}
    assert {"token_broker_calls", "token_broker_build_info", "token_broker_defects"} <= families


def test_names_and_explanations_are_as_prometheus_wants_them() -> None:
    ours = [each for each in Metrics().registry.collect() if each.name.startswith("token_broker_")]

    assert [each.name for each in ours if not re.fullmatch(r"[a-z_]+", each.name)] == []
    assert [each.name for each in ours if each.name.endswith(("_total", "_count"))] == []
    assert [each.name for each in ours if not each.documentation] == []


A_CENSUS = Census(
    by_state={GrantState.ACTIVE: 9, GrantState.HELD: 2},
    unresolved=1,
    at_risk=2,
    overdue=3,
    lag=timedelta(minutes=5),
)


def test_a_census_is_shown_by_who_takes_it() -> None:
    metrics = Metrics()

    metrics.census_taken(A_CENSUS)

    assert value(metrics, "census_taken") == 1
    assert value(metrics, "grants", state="held") == 2
    assert value(metrics, "attempts_unresolved") == 1
    assert value(metrics, "renewals_overdue") == 3
    assert value(metrics, "grants_at_risk") == 2
    assert value(metrics, "renewal_lag_seconds") == 300


def test_who_takes_the_census_no_more_shows_nothing_of_it() -> None:
    metrics = Metrics()
    metrics.census_taken(A_CENSUS)

    metrics.census_taken(None)

    assert value(metrics, "census_taken") == 0
    for name in ("attempts_unresolved", "renewals_overdue", "renewal_lag_seconds"):
        assert value(metrics, name) is None
    assert value(metrics, "grants", state="held") is None


@in_virtual_time
async def test_the_lag_of_the_loop_is_asked_twice_a_second() -> None:
    lags: list[float] = []

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.2):
            await watch_lag(lags.append)

    assert lags == [0.0, 0.0]


def test_disclosures_that_wait_and_that_are_lost_are_shown() -> None:
    metrics, pending = Metrics(), ["one", "two"]
    metrics.watch_disclosures(pending, lost=lambda: 3)

    assert value(metrics, "disclosures_pending") == 2
    assert value(metrics, "disclosures_lost_total") == 3
