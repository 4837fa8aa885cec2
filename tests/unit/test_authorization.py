"""Who may complete an authorization: whoever started it, in time, once (RFC 9700 §2.1)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.domain.authorization import Admission, Authorization, Return, admit
from broker.domain.secret import CodeVerifier, Secret
from support.grants import A_TICK, THE_NOW

STARTED = Authorization(
    state_hash=b"state",
    tenant="acme",
    session_binding_hash=b"browser",
    caller="sa:web",
    code_verifier=CodeVerifier(Secret("fake-verifier")),
    redirect_uri="https://app.example/callback",
    scopes=("accounts:read",),
    expected_subject=None,
    allow_subject_change=False,
    created_at=THE_NOW - timedelta(minutes=1),
    expires_at=THE_NOW + timedelta(minutes=9),
)
SPENT = replace(STARTED, spent_at=THE_NOW, code_hash=b"code")
BACK = Return(tenant="acme", session_binding_hash=b"browser", caller="sa:web", code_hash=b"code")
STRANGERS = [
    replace(BACK, tenant="other"),
    replace(BACK, session_binding_hash=b"another browser"),
    replace(BACK, caller="sa:other"),
]


@pytest.mark.parametrize("code_hash", [b"code", None])
def test_the_first_return_completes_the_authorization(code_hash: bytes | None) -> None:
    """None: Pleo redirected with an error, which also spends the state."""
    assert admit(STARTED, replace(BACK, code_hash=code_hash), THE_NOW) is Admission.FIRST


@pytest.mark.parametrize("authorization", [STARTED, SPENT])
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_completes_nothing(authorization: Authorization, stranger: Return) -> None:
    assert admit(authorization, stranger, THE_NOW) is Admission.INVALID


@pytest.mark.parametrize(("authorization", "admission"), [(STARTED, "FIRST"), (SPENT, "REPEATED")])
def test_an_authorization_is_completed_up_to_its_end_and_not_at_it(
    authorization: Authorization, admission: str
) -> None:
    end = authorization.expires_at

    assert admit(authorization, BACK, end - A_TICK) is Admission[admission]
    assert admit(authorization, BACK, end) is Admission.INVALID


def test_the_same_code_again_gets_the_same_result() -> None:
    assert admit(SPENT, BACK, THE_NOW) is Admission.REPEATED


@pytest.mark.parametrize("code_hash", [b"another code", None])
def test_another_code_is_not_taken_for_a_spent_state(code_hash: bytes | None) -> None:
    assert admit(SPENT, replace(BACK, code_hash=code_hash), THE_NOW) is Admission.INVALID


def test_a_redirect_with_an_error_is_repeated_like_a_code() -> None:
    denied = replace(SPENT, code_hash=None)

    assert admit(denied, replace(BACK, code_hash=None), THE_NOW) is Admission.REPEATED
    assert admit(denied, BACK, THE_NOW) is Admission.INVALID


def test_the_verifier_is_shown_by_no_authorization() -> None:
    assert "fake-verifier" not in repr(STARTED)
