"""The sandbox over real HTTP: strict where Pleo is strict."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from broker.sandbox.sandbox import Sandbox
from broker.sandbox.server import sandbox_server
from broker.sandbox.settings import DEMO_COMPANIES, Client, Settings
from broker.sandbox.visitor import ConsentNotAskedError, walk_consent
from support.sandbox_client import (
    ACME,
    BASIC,
    BJERG,
    BODY,
    REDIRECT_URI,
    VERIFIER,
    SandboxClient,
    authorization_query,
    client_of,
    parameters_of,
)

ODD_CLIENT = Client(
    client_id="odd client:%",
    client_secret="fake +secret/%25=&ø",
    redirect_uris=(REDIRECT_URI, "https://elsewhere.example/callback?fixed=1"),
)


def rule(sandbox: Sandbox, **changes: object) -> None:
    sandbox.server.settings = replace(sandbox.server.settings, **changes)  # type: ignore[arg-type]


def assert_refused(answer: httpx.Response, error: str, status: int = 400) -> None:
    assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_a_consent_gives_tokens_that_the_api_accepts(client: SandboxClient) -> None:
    tokens = await client.connected()

    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 900
    assert tokens["scope"] == "export-items:read"
    assert await client.try_on(tokens["access_token"]) == 200


async def test_answers_with_tokens_are_cached_nowhere(client: SandboxClient) -> None:
    answer = await client.exchange(await client.code())

    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_refresh_kills_both_old_tokens_at_once(client: SandboxClient) -> None:
    old = await client.connected()

    new = (await client.refresh(old["refresh_token"])).json()

    assert await client.try_on(old["access_token"]) == 401
    assert await client.try_on(new["access_token"]) == 200
    assert {old["access_token"], old["refresh_token"]}.isdisjoint(
        {new["access_token"], new["refresh_token"]}
    )


async def test_a_replay_kills_the_grant(client: SandboxClient, sandbox: Sandbox) -> None:
    old = await client.connected()
    new = (await client.refresh(old["refresh_token"])).json()

    replayed = await client.refresh(old["refresh_token"])

    assert_refused(replayed, "invalid_grant")
    assert await client.try_on(new["access_token"]) == 401
    assert_refused(await client.refresh(new["refresh_token"]), "invalid_grant")
    assert sandbox.record.counts().grants_killed_by_reuse == 1
    assert sandbox.record.counts().presentations_of_superseded == 1


async def test_grace_honours_the_previous_token_and_rotates_onward(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    rule(sandbox, mode="grace")
    old = await client.connected()
    lost = (await client.refresh(old["refresh_token"])).json()

    again = (await client.refresh(old["refresh_token"])).raise_for_status().json()

    assert await client.try_on(lost["access_token"]) == 401
    assert await client.try_on(again["access_token"]) == 200
    assert (await client.refresh(again["refresh_token"])).status_code == 200


async def test_grace_ends_the_grant_for_an_older_token(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    rule(sandbox, mode="grace")
    first = await client.connected()
    second = (await client.refresh(first["refresh_token"])).json()
    third = (await client.refresh(second["refresh_token"])).json()

    assert_refused(await client.refresh(first["refresh_token"]), "invalid_grant")
    assert await client.try_on(third["access_token"]) == 401


async def test_grace_ends_with_the_grant(client: SandboxClient, sandbox: Sandbox) -> None:
    rule(sandbox, mode="grace")
    old = await client.connected()
    await client.refresh(old["refresh_token"])

    sandbox.server.disconnect(company=ACME)

    assert_refused(await client.refresh(old["refresh_token"]), "invalid_grant")
    assert sandbox.record.counts().rotations == 1


async def test_lenient_refuses_a_replay_and_lets_the_grant_live(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    rule(sandbox, mode="lenient")
    old = await client.connected()
    new = (await client.refresh(old["refresh_token"])).json()

    assert_refused(await client.refresh(old["refresh_token"]), "invalid_grant")
    assert await client.try_on(new["access_token"]) == 200
    assert sandbox.record.counts().grants_killed_by_reuse == 0


async def test_an_expired_access_token_is_refused_and_its_refresh_token_works(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    tokens = await client.connected()

    sandbox.advance(timedelta(minutes=15))

    assert await client.try_on(tokens["access_token"]) == 401
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_the_lifetime_is_a_setting(client: SandboxClient, sandbox: Sandbox) -> None:
    rule(sandbox, access_token_lifetime=timedelta(seconds=7))
    tokens = await client.connected()

    assert tokens["expires_in"] == 7
    sandbox.advance(timedelta(seconds=7))
    assert await client.try_on(tokens["access_token"]) == 401


async def test_an_expired_refresh_token_ends_the_grant(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    rule(sandbox, access_token_lifetime=timedelta(days=90))
    tokens = await client.connected()

    sandbox.advance(timedelta(days=60))

    assert await client.try_on(tokens["access_token"]) == 200
    assert_refused(await client.refresh(tokens["refresh_token"]), "invalid_grant")
    assert await client.try_on(tokens["access_token"]) == 401


async def test_a_disconnected_company_cannot_refresh(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    tokens, other = await client.connected(ACME), await client.connected(BJERG)

    assert sandbox.server.disconnect(company=ACME) == 1

    assert await client.try_on(tokens["access_token"]) == 401
    assert_refused(await client.refresh(tokens["refresh_token"]), "invalid_grant")
    assert (await client.refresh(other["refresh_token"])).status_code == 200


@pytest.mark.parametrize(
    ("second_consent", "first_lives", "second_survives_old_refresh"),
    [("leaves", True, True), ("ends", False, True), ("replaces", False, False)],
)
async def test_a_second_consent_does_what_the_setting_says(
    client: SandboxClient,
    sandbox: Sandbox,
    second_consent: str,
    *,
    first_lives: bool,
    second_survives_old_refresh: bool,
) -> None:
    rule(sandbox, second_consent=second_consent)
    first, second = await client.connected(), await client.connected()

    assert (await client.try_on(first["access_token"]) == 200) is first_lives
    assert (await client.refresh(first["refresh_token"])).is_success is first_lives
    assert (await client.try_on(second["access_token"]) == 200) is second_survives_old_refresh


async def test_a_code_used_twice_ends_the_grant_made_from_it(client: SandboxClient) -> None:
    """RFC 6749 §4.1.2."""
    code = await client.code()
    tokens = (await client.exchange(code)).json()

    assert_refused(await client.exchange(code), "invalid_grant")
    assert await client.try_on(tokens["access_token"]) == 401
    assert_refused(await client.refresh(tokens["refresh_token"]), "invalid_grant")


async def test_a_code_lives_for_seconds(client: SandboxClient, sandbox: Sandbox) -> None:
    timely, late = await client.code(), await client.code()

    sandbox.advance(timedelta(seconds=59))
    assert (await client.exchange(timely)).status_code == 200

    sandbox.advance(timedelta(seconds=1))
    assert_refused(await client.exchange(late), "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "another-verifier-" + "w" * 40}, "invalid_grant"),
        ({"code_verifier": VERIFIER[:42]}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": REDIRECT_URI + "/"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"code": None}, "invalid_request"),
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code": "never-issued"}, "invalid_grant"),
    ],
)
async def test_an_exchange_with_one_thing_wrong_is_refused(
    client: SandboxClient, changes: dict[str, str | None], error: str
) -> None:
    form = {"code": await client.code(), **changes}

    answer = await client.exchange(form.pop("code") or "", **form)

    assert_refused(answer, error)


async def test_a_wrong_verifier_spends_the_code(client: SandboxClient) -> None:
    code = await client.code()
    await client.exchange(code, code_verifier="another-verifier-" + "w" * 40)

    assert_refused(await client.exchange(code), "invalid_grant")


@pytest.mark.parametrize(
    ("accepted", "in_header", "in_body"),
    [("basic", 400, 401), ("body", 401, 400), ("either", 400, 400)],
)
async def test_a_secret_is_accepted_where_the_setting_says(
    client: SandboxClient, sandbox: Sandbox, accepted: str, in_header: int, in_body: int
) -> None:
    rule(sandbox, client_authentication=accepted)
    form = {"grant_type": "refresh_token", "refresh_token": "never-issued"}

    header, body = await client.post(form), await client.post({**form, **BODY}, auth=None)

    assert (header.status_code, body.status_code) == (in_header, in_body)
    errors = {400: "invalid_grant", 401: "invalid_client"}
    assert header.json()["error"] == errors[in_header]
    assert body.json()["error"] == errors[in_body]


async def test_a_client_authenticates_in_the_header_unless_told_otherwise(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    tokens = await client.connected()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    assert_refused(await client.post({**form, **BODY}, auth=None), "invalid_client", 401)
    rule(sandbox, client_authentication="body")
    assert (await client.post({**form, **BODY}, auth=None)).status_code == 200


@pytest.mark.parametrize("accepted", ["basic", "body", "either"])
async def test_both_ways_at_once_are_refused_and_rotate_nothing(
    client: SandboxClient, sandbox: Sandbox, accepted: str
) -> None:
    tokens = await client.connected()
    rule(sandbox, client_authentication=accepted)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    assert_refused(await client.post({**form, **BODY}), "invalid_request")
    rule(sandbox, client_authentication="basic")
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


@pytest.mark.parametrize("auth", [(BASIC[0], "wrong"), ("nobody", BASIC[1]), None])
async def test_a_wrong_client_is_refused_and_rotates_nothing(
    client: SandboxClient, auth: tuple[str, str] | None
) -> None:
    tokens = await client.connected()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    refused = await client.post(form, auth=auth)

    assert_refused(refused, "invalid_client", 401)
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_another_clients_refresh_token_is_refused_and_lives(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    other = replace(ODD_CLIENT, client_id="other", client_secret="fake-other-secret")
    sandbox.server.realm.add_client(other)
    tokens = await client.connected()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}

    assert_refused(await client.post(form, auth=("other", "fake-other-secret")), "invalid_grant")
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_basic_credentials_are_form_encoded_first(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    """RFC 6749 §2.3.1."""
    sandbox.server.realm.add_client(ODD_CLIENT)
    form = {"grant_type": "refresh_token", "refresh_token": "never-issued"}
    plain = (ODD_CLIENT.client_id, ODD_CLIENT.client_secret)
    encoded = ("odd+client%3A%25", "fake+%2Bsecret%2F%2525%3D%26%C3%B8")

    assert_refused(await client.post(form, auth=encoded), "invalid_grant")
    assert_refused(await client.post(form, auth=plain), "invalid_client", 401)


@pytest.mark.parametrize(
    ("content", "content_type", "query"),
    [
        ("grant_type=refresh_token&refresh_token=a&refresh_token=b", "form", ""),
        ("grant_type=refresh_token&refresh_token=%FF", "form", ""),
        ('{"grant_type": "refresh_token"}', "application/json", ""),
        ("grant_type=refresh_token&refresh_token=a", "form", "?refresh_token=a"),
    ],
)
async def test_what_is_no_form_is_refused(
    client: SandboxClient, content: str, content_type: str, query: str
) -> None:
    media_type = content_type.replace("form", "application/x-www-form-urlencoded")

    answer = await client.http.post(
        f"/oauth/token{query}", content=content, headers={"Content-Type": media_type}, auth=BASIC
    )

    assert_refused(answer, "invalid_request")


async def test_tokens_suffer_from_a_client_that_forgets_to_encode(client: SandboxClient) -> None:
    tokens = await client.connected()

    answer = await client.http.post(
        "/oauth/token",
        content=f"grant_type=refresh_token&refresh_token={tokens['refresh_token']}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        auth=BASIC,
    )

    assert_refused(answer, "invalid_grant")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"redirect_uri": REDIRECT_URI + "/"},
        {"redirect_uri": REDIRECT_URI + "?added=1"},
        {"redirect_uri": REDIRECT_URI.replace("localhost", "LOCALHOST")},
        {"redirect_uri": None},
    ],
)
async def test_a_wrong_client_or_redirect_uri_gets_a_page_and_no_redirect(
    client: SandboxClient, changes: dict[str, str | None]
) -> None:
    """RFC 6749 §4.1.2.1."""
    page = await client.http.get(f"/oauth/authorize?{authorization_query(changes)}")

    assert page.status_code == 400
    assert "Location" not in page.headers
    assert "This cannot go on" in page.text


async def test_a_repeated_parameter_gets_a_page(client: SandboxClient) -> None:
    query = f"{authorization_query()}&state=another"

    assert (await client.http.get(f"/oauth/authorize?{query}")).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "too-short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
async def test_other_mistakes_go_back_to_the_client(
    client: SandboxClient, changes: dict[str, str | None], error: str
) -> None:
    answer = await client.http.get(f"/oauth/authorize?{authorization_query(changes)}")

    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{REDIRECT_URI}?error=")
    assert parameters_of(answer.headers["Location"])["error"] == error
    assert parameters_of(answer.headers["Location"])["state"] == "a-fake-state"


async def test_a_request_without_state_is_refused(client: SandboxClient) -> None:
    answer = await client.http.get(f"/oauth/authorize?{authorization_query({'state': None})}")

    assert parameters_of(answer.headers["Location"])["error"] == "invalid_request"


async def test_a_denied_consent_says_so(client: SandboxClient) -> None:
    uri = f"{client.sandbox.authorize_url}?{authorization_query()}"

    location = await walk_consent(client.http, uri, is_approved=False)

    assert parameters_of(location) == {
        "error": "access_denied",
        "error_description": "The customer declined",
        "state": "a-fake-state",
    }


async def test_the_redirect_keeps_the_redirect_uris_own_query(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    sandbox.server.realm.add_client(ODD_CLIENT)
    changes = {"client_id": ODD_CLIENT.client_id, "redirect_uri": ODD_CLIENT.redirect_uris[1]}
    uri = f"{sandbox.authorize_url}?{authorization_query(changes)}"

    location = await walk_consent(client.http, uri)

    assert location.startswith("https://elsewhere.example/callback?fixed=1&code=")


async def test_a_consent_form_is_answered_once(client: SandboxClient) -> None:
    page = await client.http.get(f"/oauth/authorize?{authorization_query()}")
    request_id = page.text.split('name="request" value="')[1].split('"')[0]
    form = {"request": request_id, "company": ACME, "decision": "allow"}

    assert (await client.http.post("/oauth/authorize", data=form)).status_code == 303
    assert (await client.http.post("/oauth/authorize", data=form)).status_code == 400


async def test_an_unknown_company_cannot_consent(client: SandboxClient) -> None:
    uri = f"{client.sandbox.authorize_url}?{authorization_query()}"

    with pytest.raises(ConsentNotAskedError):
        await walk_consent(client.http, uri, company="urn:pleo:company:nobody")


async def test_the_consent_page_offers_every_company_and_both_decisions(
    client: SandboxClient,
) -> None:
    page = (await client.http.get(f"/oauth/authorize?{authorization_query()}")).text

    assert all(company.urn in page for company in DEMO_COMPANIES)
    assert re.findall(r'<button.* value="(\w+)">(\w+)</button>', page) == [
        ("allow", "Allow"),
        ("deny", "Deny"),
    ]
    assert "It is not Pleo" in page


async def test_the_consent_page_escapes_what_it_shows(client: SandboxClient) -> None:
    query = authorization_query({"scope": '<script>alert("x")</script>'})

    page = await client.http.get(f"/oauth/authorize?{query}")

    assert "&lt;script&gt;" in page.text
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_the_front_page_says_that_it_is_not_pleo(client: SandboxClient) -> None:
    page = await client.http.get("/")

    assert "It is not Pleo" in page.text
    assert f"{client.sandbox.url}/oauth/token" in page.text
    assert BASIC[1] not in page.text


async def test_the_api_tells_which_company_consented(client: SandboxClient) -> None:
    tokens = await client.connected(BJERG)

    answer = await client.api("GET", "/v1/introspect", tokens["access_token"])

    assert answer.json() == {
        "data": {
            "authMethod": "OAUTH2",
            "clientId": BASIC[0],
            "scope": "export-items:read",
            "applicationName": "Demo integration",
            "subjectURN": BJERG,
        }
    }


async def test_the_api_can_keep_the_company_to_itself(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    rule(sandbox, names_company=False)
    tokens = await client.connected()

    answer = await client.api("GET", "/v1/introspect", tokens["access_token"])

    assert "subjectURN" not in answer.json()["data"]


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Basic x", "", "Bearer"])
async def test_the_api_wants_a_living_access_token(
    client: SandboxClient, authorization: str
) -> None:
    for method, path in (
        ("GET", "introspect"),
        ("GET", "export-items"),
        ("DELETE", "installations/me"),
    ):
        answer = await client.http.request(
            method, f"/v1/{path}", headers={"Authorization": authorization}
        )
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_grant_without_the_scope_gets_403(client: SandboxClient) -> None:
    tokens = await client.connected(scope="accounts:read")

    assert await client.try_on(tokens["access_token"]) == 403


@pytest.mark.parametrize(("deletion_ends", "other_status"), [("company", 200), ("client", 401)])
async def test_deleting_the_installation_ends_what_the_setting_says(
    client: SandboxClient, sandbox: Sandbox, deletion_ends: str, other_status: int
) -> None:
    rule(sandbox, deletion_ends=deletion_ends)
    tokens, other = await client.connected(ACME), await client.connected(BJERG)

    deleted = await client.api("DELETE", "/v1/installations/me", tokens["access_token"])

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert_refused(await client.refresh(tokens["refresh_token"]), "invalid_grant")
    assert await client.try_on(other["access_token"]) == other_status


async def introspected(client: SandboxClient, shown: str) -> httpx.Response:
    return await client.http.post("/oauth/token/introspect", data={"token": shown}, auth=BASIC)


async def test_introspection_tells_about_living_tokens_and_no_others(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    tokens = await client.connected()

    for shown in (tokens["access_token"], tokens["refresh_token"]):
        told = (await introspected(client, shown)).json()
        assert told["active"] is True
        assert told["urn:pleo:params:oauth:subject_urn"] == ACME
    sandbox.server.disconnect(company=ACME)
    assert (await introspected(client, tokens["access_token"])).json() == {"active": False}


async def test_introspection_takes_basic_alone(client: SandboxClient) -> None:
    form = {"token": "anything", **BODY}

    assert_refused(
        await client.http.post("/oauth/token/introspect", data=form), "invalid_client", 401
    )


async def test_introspecting_a_superseded_refresh_token_kills_the_grant(
    client: SandboxClient, sandbox: Sandbox
) -> None:
    old = await client.connected()
    new = (await client.refresh(old["refresh_token"])).json()

    await introspected(client, old["refresh_token"])

    assert await client.try_on(new["access_token"]) == 401
    assert sandbox.record.counts().introspections_of_superseded == 1


async def test_tokens_can_be_as_long_as_a_jwt() -> None:
    async with (
        sandbox_server(settings=Settings(secret_length=6000)) as sandbox,
        client_of(sandbox) as client,
    ):
        tokens = await client.connected()

        assert len(tokens["access_token"]) == len(tokens["refresh_token"]) == 6000
        assert (await client.refresh(tokens["refresh_token"])).status_code == 200
