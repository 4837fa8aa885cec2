"""What the customer reads. Plain HTML without scripts; whatever comes from outside is escaped here.

Knows the broker's reasons by name, and has words for those that a customer can do something about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

from starlette.responses import HTMLResponse

from broker.v1.grant_service_pb2 import Grant

_HEADERS: Final = {
    # The callback's address holds a code: it is kept in no cache and told to no other site.
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'",
}

_STYLE: Final = """
:root { color-scheme: light dark; font: 100%/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 36rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
code { overflow-wrap: anywhere; }
form { display: inline; }
label { display: block; max-width: 24rem; }
input { border: 1px solid #8888; border-radius: .5rem; box-sizing: border-box; font: inherit;
  margin: .25rem 0; min-height: 2.75rem; padding: .5rem .75rem; width: 100%; }
button { border: 1px solid #1a5fb4; border-radius: .5rem; background: #1a5fb4; color: #fff;
  cursor: pointer; font: inherit; margin: .25rem .5rem .25rem 0; min-height: 2.75rem;
  padding: .5rem 1.25rem; }
button.quiet { background: none; border-color: #8888; color: inherit; }
.good { border-left: .35rem solid #2b8a3e; padding-left: .75rem; }
.bad { border-left: .35rem solid #c92a2a; padding-left: .75rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: .5rem .75rem .5rem 0; vertical-align: middle; }
td:last-child { padding-right: 0; text-align: right; white-space: nowrap; }
td button { margin-right: 0; }
td strong { overflow-wrap: anywhere; }
small { opacity: .75; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt to connect ended, other than well."""

    title: str
    text: str
    """With `{names}` of the broker's metadata in it."""

    status: int = 400
    offers: tuple[str, ...] = ("again",)
    """The buttons: `again`, `other` (company), `reload`."""


STARTED_ELSEWHERE: Final = Outcome(
    title="Please start again",
    text="This took too long, or was started in another browser. Nothing was changed.",
)

_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "AUTHORIZATION_STATE_INVALID": STARTED_ELSEWHERE,
    "CONSENT_DENIED": Outcome(
        title="Not connected",
        text="Pleo says that access was not given (<code>{error}</code>). Nothing was changed.",
    ),
    "CODE_REJECTED": Outcome(
        title="Please start again", text="Pleo did not accept the way back in time."
    ),
    "EXCHANGE_OUTCOME_UNKNOWN": Outcome(
        title="Please start again", text="The answer of Pleo did not arrive."
    ),
    "SUBJECT_MISMATCH": Outcome(
        title="Another company than before",
        text="You chose<br><code>{actual}</code><br>and this account belongs to<br>"
        "<code>{expected}</code><br>Nothing was changed.",
        status=409,
        offers=("again", "other"),
    ),
    "SUBJECT_ALREADY_CONNECTED": Outcome(
        title="This company is connected already",
        text="Another account here has <code>{subject}</code>. Please ask your colleagues. "
        "Nothing was changed.",
        status=409,
    ),
    "INVALID_REQUEST": Outcome(
        title="That is no account", text="Please check what you typed.", offers=()
    ),
}

_LATER: Final = Outcome(
    title="One moment, please",
    text="Pleo or our own service does not answer just now. Reloading this page tries again.",
    status=503,
    offers=("reload", "again"),
)

_OURS: Final = Outcome(
    title="This is our fault", text="Something went wrong here. We are looking at it.", status=502
)


def front(waiting: Iterable[Grant], *, is_current: bool) -> HTMLResponse:
    """Shows who must connect again, and a form for everybody else."""
    rows = "".join(map(_row, sorted(waiting, key=lambda grant: grant.tenant)))
    table = f"<table>{rows}</table>"
    stale = "" if is_current else "<p><small>The list may be old: nobody answers.</small></p>"
    return _page(
        "Connect to Pleo",
        f"""
<form method="post" action="/connect">
<label>Account <input name="tenant" maxlength="200" required autocomplete="off"></label>
<button>Connect to Pleo</button>
</form>
<h2>Must connect again</h2>
{table if rows else "<p>Nobody.</p>"}{stale}""",
    )


def connected(grant: Grant) -> HTMLResponse:
    """Says that it is done."""
    scopes = ", ".join(f"<code>{escape(scope)}</code>" for scope in grant.scopes)
    return _page(
        "Connected",
        f"""
<p class="good"><strong>{escape(grant.tenant)}</strong> is connected to<br>
<code>{escape(grant.subject or "a company that Pleo does not name")}</code></p>
<p>It may use: {scopes or "nothing in particular"}.</p>
{_BACK}""",
    )


def refused(reason: str, *, tenant: str, facts: Mapping[str, str], may_wait: bool) -> HTMLResponse:
    """Says how it ended, by the broker's reason; `may_wait`: waiting helps."""
    outcome = _OUTCOMES.get(reason, _LATER if may_wait else _OURS)
    return ended(outcome, tenant=tenant, facts=facts)


def ended(
    outcome: Outcome, *, tenant: str = "", facts: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Says how it ended, and offers what can be done."""
    text = outcome.text.format_map(_Escaped(facts or {}))
    offers = "".join(_OFFERS[each].format(tenant=escape(tenant)) for each in outcome.offers)
    body = f'<p class="bad">{text}</p>\n{offers if tenant else ""}{_BACK}'
    return _page(outcome.title, body, status=outcome.status)


class _Escaped(dict[str, str]):
    """Facts of the broker, which repeats what others said."""

    def __init__(self, facts: Mapping[str, str]) -> None:
        super().__init__({name: escape(value) for name, value in facts.items()})

    def __missing__(self, name: str) -> str:
        return "unknown"


_AGAIN: Final = """<form method="post" action="/connect">
<input type="hidden" name="tenant" value="{tenant}">"""

_OFFERS: Final = {
    "again": f"{_AGAIN}<button>Start again</button></form>\n",
    "other": f'{_AGAIN}<input type="hidden" name="other_company" value="yes">'
    '<button class="quiet">Move to the new company</button></form>\n',
    "reload": '<a href="">Reload</a>\n',
}

_BACK: Final = '<p><a href="/">Back to all accounts</a></p>'

_CAUSES: Final = {
    Grant.Reauth.CAUSE_EXPIRED_OR_REVOKED: "expired, or disconnected in Pleo",
    Grant.Reauth.CAUSE_ROTATION_LOST: "a technical fault; we are sorry",
    Grant.Reauth.CAUSE_OPERATOR: "ended by our support",
}


def _row(grant: Grant) -> str:
    since = grant.reauth.since_time.ToDatetime()
    cause = _CAUSES.get(grant.reauth.cause, "not known")
    return f"""
<tr><td><strong>{escape(grant.tenant)}</strong><br><small>{cause}<br>
since <time datetime="{since:%Y-%m-%dT%H:%M:%SZ}">{since:%d %B, %H:%M} UTC</time></small></td>
<td>{_AGAIN.format(tenant=escape(grant.tenant))}<button>Reconnect</button></form></td></tr>"""


def _page(title: str, body: str, *, status: int = 200) -> HTMLResponse:
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
    return HTMLResponse(text, status_code=status, headers=_HEADERS)
