"""The pages that a person sees: the consent form, an error, and what this is.

Plain HTML without scripts, readable on a phone. Every value that comes from outside is escaped
here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from broker.sandbox.consents import AuthorizationRequest
from broker.sandbox.record import Counts
from broker.sandbox.settings import Client, Company

_STYLE: Final = """
:root { color-scheme: light dark; font: 100%/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 34rem; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; }
.notice { background: #ffd84d; border-radius: .5rem; color: #222; padding: .5rem .75rem; }
fieldset { border: 1px solid #8888; border-radius: .5rem; margin: 1rem 0; padding: .5rem .75rem; }
label { display: block; padding: .5rem 0; }
code { overflow-wrap: anywhere; }
button { border: 1px solid #8888; border-radius: .5rem; cursor: pointer; font: inherit;
  margin: .25rem .5rem .25rem 0; min-height: 2.75rem; padding: .5rem 1.25rem; }
button.main { background: #1a5fb4; border-color: #1a5fb4; color: #fff; }
small { display: block; opacity: .75; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: .25rem 0; }
td + td { text-align: right; }
"""

_NOTICE: Final = (
    "This is a sandbox, a test instrument. It is not Pleo, and no real company is here."
)


def consent_page(request: AuthorizationRequest, companies: Iterable[Company]) -> str:
    """Ask the customer: which company, yes or no."""
    name = escape(request.client.application_name)
    return _page(
        f"{name} asks for access",
        f"""
<p>Client <code>{escape(request.client.client_id)}</code>, which then returns to
<code>{escape(request.redirect_uri)}</code>.</p>
{_scopes(request.scopes)}
<form method="post" action="/oauth/authorize">
<input type="hidden" name="request" value="{escape(request.request_id)}">
<fieldset><legend>For which company?</legend>
{_choices(companies)}
</fieldset>
<button class="main" name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>""",
    )


def error_page(reason: str) -> str:
    """Say why the browser is not sent on."""
    return _page("This cannot go on", f"<p>{escape(reason)}</p>")


def front_page(
    url: str, *, clients: Iterable[Client], companies: Iterable[Company], counts: Counts
) -> str:
    """Say what this is, and where everything is."""
    return _page(
        "The Pleo sandbox",
        f"""
<p>A stand-in for Pleo's authorization server that can be told to misbehave.</p>
<h2>Addresses</h2>
<table>
{_rows((what, f"<code>{escape(url + path)}</code>") for what, path in _ADDRESSES)}
</table>
<h2>Clients</h2>
<ul>{"".join(_client(client) for client in clients)}</ul>
<h2>Companies</h2>
<ul>{"".join(f"<li>{escape(c.name)}<small>{escape(c.urn)}</small></li>" for c in companies)}</ul>
<h2>So far</h2>
<table>
{_rows((str(presented), number) for presented, number in _so_far(counts))}
</table>
<h2>Control</h2>
<ul>{"".join(f'<li><a href="{path}">{path}</a>, {what}</li>' for path, what in _CONTROLS)}</ul>""",
    )


_ADDRESSES: Final = (
    ("authorize", "/oauth/authorize"),
    ("token", "/oauth/token"),
    ("introspect", "/oauth/token/introspect"),
    ("API", ""),
)

_CONTROLS: Final = (
    ("/sandbox/record", "every presentation of a refresh token or code"),
    ("/sandbox/faults", "how it misbehaves, also POST and DELETE"),
    ("/sandbox/held", "requests that wait for a release"),
    ("/sandbox/settings", "the rules in force, also PATCH"),
    ("/sandbox/clients", "also POST"),
    ("/sandbox/companies", "also POST"),
)


def _so_far(counts: Counts) -> tuple[tuple[str, str], ...]:
    return (
        ("refresh tokens presented", str(counts.presentations)),
        ("of them superseded", str(counts.presentations_of_superseded)),
        ("rotations", str(counts.rotations)),
        ("codes presented", str(counts.exchanges)),
        ("grants killed by reuse", str(counts.grants_killed_by_reuse)),
    )


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<p class="notice">{_NOTICE}</p>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def _scopes(scopes: Iterable[str]) -> str:
    items = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in scopes)
    return f"<p>It asks for:</p><ul>{items}</ul>" if items else "<p>It asks for no scopes.</p>"


def _choices(companies: Iterable[Company]) -> str:
    return "\n".join(
        f'<label><input type="radio" name="company" value="{escape(company.urn)}"'
        f"{' checked' if first == 0 else ''}> {escape(company.name)}"
        f"<small>{escape(company.urn)}</small></label>"
        for first, company in enumerate(companies)
    )


def _client(client: Client) -> str:
    uris = "<br>".join(escape(uri) for uri in client.redirect_uris)
    return f"<li><code>{escape(client.client_id)}</code><small>{uris}</small></li>"


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"<tr><td>{left}</td><td>{right}</td></tr>" for left, right in rows)
