"""How an authorization ended, kept and told again; and whose company may consent."""

from __future__ import annotations

import pytest

from broker.domain.errors import (
    AuthorizationStateInvalid,
    BrokerError,
    CodeRejected,
    ConsentDenied,
    ExchangeOutcomeUnknown,
    ProviderRejectedClient,
    ProviderUnavailable,
    SubjectAlreadyConnected,
    SubjectMismatch,
)
from broker.domain.outcomes import SUCCESS, error_of, outcome_of, required_subject, subject_problem
from support.grants import some_grant

KEPT: list[BrokerError] = [
    ConsentDenied(tenant="acme", error="access_denied"),
    CodeRejected(tenant="acme", error="invalid_grant"),
    ProviderRejectedClient(tenant="acme", error="invalid_client"),
    SubjectAlreadyConnected(tenant="acme", subject="urn:pleo:company:1"),
    SubjectMismatch(tenant="acme", expected="urn:pleo:company:1", actual="urn:pleo:company:2"),
    SubjectMismatch(tenant="acme", expected="urn:pleo:company:1", actual=None),
    ExchangeOutcomeUnknown(tenant="acme"),
    AuthorizationStateInvalid(tenant="acme"),
]


@pytest.mark.parametrize("error", KEPT, ids=lambda error: type(error).__name__)
def test_a_kept_error_is_told_again_word_for_word(error: BrokerError) -> None:
    again = error_of(outcome_of(error), "acme")

    assert type(again) is type(error)
    assert again is not None
    assert (again.message, again.tenant, again.metadata) == (
        error.message,
        error.tenant,
        error.metadata,
    )


def test_a_kept_success_is_no_error() -> None:
    assert error_of(SUCCESS, "acme") is None


def test_an_outcome_of_a_newer_release_ends_the_authorization() -> None:
    unheard_of = outcome_of(ProviderUnavailable("later"))

    assert isinstance(error_of(unheard_of, "acme"), AuthorizationStateInvalid)


@pytest.mark.parametrize(
    ("known", "expected", "allow_change", "actual", "required"),
    [
        pytest.param(None, None, False, "b", None, id="a first consent may be anybody's"),
        pytest.param(None, None, False, None, None, id="a first consent may be nobody's"),
        pytest.param("a", None, False, "a", None, id="the same company again"),
        pytest.param("a", None, False, "b", "a", id="another company than before"),
        pytest.param("a", None, False, None, "a", id="a reconnect without a company"),
        pytest.param("a", None, True, "b", None, id="a change that was allowed"),
        pytest.param("a", "b", False, "b", None, id="the company that was named"),
        pytest.param("a", "b", True, "c", "b", id="another company than the named one"),
        pytest.param(None, "b", False, None, "b", id="a named one that is not told"),
    ],
)
def test_the_company_must_be_the_known_or_named_one(
    known: str | None,
    expected: str | None,
    allow_change: bool,  # noqa: FBT001 - a column of the table above
    actual: str | None,
    required: str | None,
) -> None:
    grant = some_grant(subject=known)

    must_be = required_subject(grant, expected=expected, allow_change=allow_change)
    problem = subject_problem(grant.tenant, required=must_be, actual=actual)

    assert (None if problem is None else problem.metadata["expected"]) == required
