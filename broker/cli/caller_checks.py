"""What `doctor` finds about callers: the server's certificate, the policy, the issuer's keys.

Reads the files as `serve` does, and judges what `serve` leaves to people: ends that come near, and
rules that nobody can ever match.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.cli.checks import Check, bad, ok, warning
from broker.config import ServeSettings, Settings
from broker.domain.facts import Fact
from broker.domain.policy import Policy
from broker.guarding import tls_files
from broker.rpc.caller import ANONYMOUS
from broker.rpc.jwks import FileIssuer
from broker.rpc.jwks_url import fetch_keys
from broker.rpc.policy_file import load_policy
from broker.rpc.reloading import FilesUnusableError
from broker.rpc.tls import ServerCertificate, load_certificate

CALLER_CHECKS: Final = ("certificate", "policy", "issuer's keys")

_SOON: Final = timedelta(days=7)
"""cert-manager renews a certificate of ninety days thirty days before its end, one of a service
mesh lives a day: whichever has a week left and lives longer than that should have been renewed."""


class Unheard:
    """An observer for who reads files once and has nobody to tell."""

    def observe(self, fact: Fact) -> None:
        """Does nothing."""


async def check_callers(settings: ServeSettings) -> list[Check]:
    """Looks at all that lets callers in."""
    return [
        *_check_certificate(settings, now=datetime.now(UTC)),
        *_check_policy(settings),
        *await _check_keys(settings),
    ]


def _check_certificate(settings: Settings, *, now: datetime) -> Iterator[Check]:
    files = tls_files(settings)
    if files is None:
        where = "off loopback too (BROKER_INSECURE)" if settings.insecure else "on loopback only"
        yield ok("certificate", f"no TLS: clear text, {where}")
        return
    try:
        certificate = load_certificate(files, observer=Unheard()).current
    except FilesUnusableError as error:
        yield bad("certificate", str(error), mend="BROKER_TLS_*: mount what belongs together")
        return
    yield _judge_certificate(certificate, now)
    ends_at = certificate.authorities_expire_at
    if ends_at is not None and ends_at < now + _SOON:
        judge = bad if ends_at < now else warning
        yield judge(
            "certificate",
            f"an authority of BROKER_TLS_CLIENT_CA_FILE ends at {ends_at}",
            mend="add the next authority to the file before callers' certificates come from it",
        )


def _judge_certificate(certificate: ServerCertificate, now: datetime) -> Check:
    names = ", ".join(certificate.names)
    starts_at, ends_at = certificate.not_before, certificate.expires_at
    if not names:
        mend = "give it the DNS names that callers use (subjectAltName)"
        return bad("certificate", "names no host, so that no caller accepts it", mend=mend)
    if ends_at < now:
        return bad("certificate", f"for {names}, expired at {ends_at}", mend="renew it")
    if starts_at > now:
        return bad(
            "certificate", f"for {names}, not valid before {starts_at}", mend="look at the clock"
        )
    if ends_at < now + _SOON < now + (ends_at - starts_at):
        return warning(
            "certificate", f"for {names}, expires at {ends_at}", mend="see why it is not renewed"
        )
    return ok("certificate", f"for {names}, until {ends_at}")


def _check_policy(settings: Settings) -> Iterator[Check]:
    if settings.policy_file is None:
        who = "everybody may do everything" if settings.allows_anonymous else "nobody may call"
        yield ok("policy", f"none: {who}")
        return
    try:
        policy = load_policy(settings.policy_file, observer=Unheard()).current
    except FilesUnusableError as error:
        yield bad("policy", str(error), mend="BROKER_POLICY_FILE: mend the lines that are named")
        return
    callers = sorted({rule.identity for rule in policy.rules})
    yield ok("policy", f"{len(policy.rules)} rules for {len(callers)} callers")
    yield from _unreachable(settings, policy)


def _unreachable(settings: Settings, policy: Policy) -> Iterator[Check]:
    has_certificates = settings.tls_client_ca_file is not None
    can_be_proven = {
        "uri": has_certificates,
        "dns": has_certificates,
        "sa": settings.jwt_issuer is not None,
        ANONYMOUS: settings.allows_anonymous,
    }
    for identity in sorted({rule.identity for rule in policy.rules}):
        if not can_be_proven[identity.partition(":")[0]]:
            yield warning(
                "policy",
                f"{identity} has rules, and nobody can prove to be it",
                mend="set BROKER_TLS_CLIENT_CA_FILE for uri: and dns:, BROKER_JWT_* for sa:, or"
                " take the rules away",
            )


async def _check_keys(settings: Settings) -> list[Check]:
    if settings.jwt_jwks is None:
        return []
    try:
        if settings.jwt_jwks.startswith("/"):
            keys = FileIssuer(Path(settings.jwt_jwks), observer=Unheard()).keys()
        else:
            keys = await fetch_keys(settings.jwt_jwks)
    except FilesUnusableError as error:
        return [bad("issuer's keys", str(error), mend="BROKER_JWT_JWKS, or the network to it")]
    return [ok("issuer's keys", f"{len(keys)} keys of {settings.jwt_issuer}")]
