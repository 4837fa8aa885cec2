"""Every setting of the broker: variable, kind, default, meaning. `SETTINGS.md` is made from this.

Defaults need no touching. What is None was not set, and `without` says what that means. Durations
are `timedelta` here; their units are in the names of the variables only.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from broker.config import readers
from broker.config.addresses import Address
from broker.config.choices import ClientAuth, LogFormat, LogLevel, PleoEnvironment
from broker.config.declaring import Frozen, setting
from broker.config.sources import SecretSource
from broker.domain.times import LONGEST_HTTP_TIMEOUT

RequiredPath = Annotated[Path, readers.file_path()]
OptionalPath = Annotated[Path | None, readers.file_path()]
OptionalUrl = Annotated[str | None, readers.https_url()]
RequiredText = Annotated[str, readers.matching(r"\S+", "a name without blanks")]
OptionalText = Annotated[str | None, readers.matching(r"\S+", "a name without blanks")]
Switch = Annotated[bool, readers.switch()]
DatabaseSource = Annotated[SecretSource, readers.database_url()]
RedisSource = Annotated[SecretSource, readers.redis_url()]
ListenAddress = Annotated[Address, readers.listen_address()]

REQUIRED_FOR_SERVE = "required for `serve`"


class Fields(Frozen):
    """The settings of a broker."""

    home: Annotated[
        str, readers.matching(r"[A-Za-z0-9._-]{1,63}", "1 to 63 characters of A-Z a-z 0-9 . _ -")
    ] = setting(
        "BROKER_HOME",
        "the name of this installation, as `production-eu`; a database of another one is refused",
        "default",
    )

    # What it stands on.
    database_url: DatabaseSource | None = setting(
        "BROKER_DATABASE_URL",
        "PostgreSQL 14+, of `h1:p,h2:p` the one that can write. Off loopback, less than"
        " `sslmode=verify-full` needs `BROKER_INSECURE`",
        None,
        without=REQUIRED_FOR_SERVE,
    )
    database_ca_file: OptionalPath = setting(
        "BROKER_DATABASE_CA_FILE",
        "who signs PostgreSQL's certificate",
        None,
        without="the system's authorities",
    )
    redis_url: RedisSource | None = setting(
        "BROKER_REDIS_URL",
        "Redis 6.2+ or Valkey: `redis://`, `rediss://`, `unix://`,"
        " `redis+sentinel(s)://u:p@h1:p,h2:p/SERVICE/DB`, `redis+cluster(s)://u:p@h1:p,h2:p`",
        None,
        without=REQUIRED_FOR_SERVE,
    )
    redis_ca_file: OptionalPath = setting(
        "BROKER_REDIS_CA_FILE",
        "who signs the certificates of Redis and its Sentinels; for `rediss://`, `redis+sentinels://`",
        None,
        without="the system's authorities",
    )
    keyset_file: OptionalPath = setting(
        "BROKER_KEYSET_FILE",
        "the encryption keyset (`token-broker keys`), read again when it changes",
        None,
        without=REQUIRED_FOR_SERVE,
    )

    # Who may connect, and how.
    grpc_address: ListenAddress = setting(
        "BROKER_GRPC_ADDRESS",
        "where gRPC is listened for; port 0: any free one",
        Address(host="127.0.0.1", port=50051),
    )
    ops_address: ListenAddress = setting(
        "BROKER_OPS_ADDRESS",
        "where HTTP is listened for: health, metrics; unauthenticated, shows no tenant, caller or"
        " grant",
        Address(host="127.0.0.1", port=8080),
    )
    admin_socket: Annotated[Path | None, readers.socket_path()] = setting(
        "BROKER_ADMIN_SOCKET",
        "Unix socket, mode 0600, for the command line inside the pod",
        None,
        without="off",
    )
    tls_cert_file: OptionalPath = setting(
        "BROKER_TLS_CERT_FILE",
        "the server's certificate and chain, reloaded when it changes",
        None,
        without="off: then only loopback is listened on, unless `BROKER_INSECURE=true`",
    )
    tls_key_file: OptionalPath = setting(
        "BROKER_TLS_KEY_FILE", "the certificate's key", None, without="off"
    )
    tls_client_ca_file: OptionalPath = setting(
        "BROKER_TLS_CLIENT_CA_FILE",
        "who signs callers' certificates; where it is set, every caller needs one",
        None,
        without="off",
    )
    insecure: Switch = setting(
        "BROKER_INSECURE",
        "TLS is demanded of nobody, since a mesh encrypts; callers still need an identity",
        default=False,
    )
    anonymous: Annotated[bool | None, readers.switch()] = setting(
        "BROKER_ANONYMOUS",
        "callers without identity are let in; refused off loopback",
        None,
        without="`true` on loopback without TLS, JWT or policy, else `false`",
    )
    jwt_issuer: OptionalText = setting(
        "BROKER_JWT_ISSUER", "who signs callers' service-account tokens", None, without="off"
    )
    jwt_audience: OptionalText = setting(
        "BROKER_JWT_AUDIENCE", "whom those tokens are for: us", None, without="off"
    )
    jwt_jwks: Annotated[str | None, readers.url_or_file()] = setting(
        "BROKER_JWT_JWKS", "the issuer's keys: an address or a file", None, without="off"
    )
    policy_file: OptionalPath = setting(
        "BROKER_POLICY_FILE",
        "who may call what for which tenants; reloaded when it changes",
        None,
        without="required when callers have identities",
    )
    caller_max_rate: Annotated[int, readers.whole(1, 1_000_000)] = setting(
        "BROKER_CALLER_MAX_RATE",
        "calls per second of one caller at each replica; ten seconds' worth may come at once",
        # A caller with ten thousand customers who asks before every request to Pleo makes a few
        # hundred; one replica answers several thousand, and must have some left for the others.
        1000,
    )
    reflection: Switch = setting("BROKER_REFLECTION", "gRPC reflection", default=True)
    max_connection_age: Annotated[timedelta, readers.seconds(1, 86_400)] = setting(
        "BROKER_MAX_CONNECTION_AGE_SECONDS",
        "after which a connection is ended, so that callers find new replicas, and withdrawn"
        " certificates count no longer",
        timedelta(minutes=30),
    )

    # Pleo.
    pleo_environment: Annotated[PleoEnvironment, readers.one_of(PleoEnvironment)] = setting(
        "BROKER_PLEO_ENVIRONMENT", "`staging`, `production` or `custom`", PleoEnvironment.STAGING
    )
    pleo_client_id: OptionalText = setting(
        "BROKER_PLEO_CLIENT_ID", "the OAuth client", None, without=REQUIRED_FOR_SERVE
    )
    pleo_client_secret: SecretSource | None = setting(
        "BROKER_PLEO_CLIENT_SECRET",
        "the OAuth client's secret; from a file, read at each token request",
        None,
        without=REQUIRED_FOR_SERVE,
    )
    pleo_redirect_uris: Annotated[tuple[str, ...], readers.redirect_uris()] = setting(
        "BROKER_PLEO_REDIRECT_URIS",
        "the registered redirect URIs, space-separated, the first is the default",
        (),
        without="required for authorization",
    )
    pleo_scopes: Annotated[tuple[str, ...], readers.scopes()] = setting(
        "BROKER_PLEO_SCOPES", "default scopes, space-separated", ()
    )
    pleo_client_auth: Annotated[ClientAuth, readers.one_of(ClientAuth)] = setting(
        "BROKER_PLEO_CLIENT_AUTH",
        "where the client's secret goes: `basic` or `body`",
        ClientAuth.BASIC,
    )
    pleo_authorize_url: OptionalUrl = setting(
        "BROKER_PLEO_AUTHORIZE_URL",
        "for `custom`: HTTPS, or HTTP on loopback",
        None,
        without="from the environment",
    )
    pleo_token_url: OptionalUrl = setting(
        "BROKER_PLEO_TOKEN_URL", "likewise", None, without="from the environment"
    )
    pleo_api_url: Annotated[str | None, readers.base_url()] = setting(
        "BROKER_PLEO_API_URL",
        "likewise; an empty one turns off the subject look-up, in every environment",
        None,
        without="from the environment",
    )
    pleo_authorize_params: Annotated[tuple[tuple[str, str], ...], readers.form_parameters()] = (
        setting(
            "BROKER_PLEO_AUTHORIZE_PARAMS",
            "further parameters of the authorization request, form-encoded",
            (),
        )
    )
    pleo_timeout: Annotated[
        timedelta, readers.seconds(1, int(LONGEST_HTTP_TIMEOUT.total_seconds()))
    ] = setting("BROKER_PLEO_TIMEOUT_SECONDS", "for a whole token request", timedelta(seconds=10))
    pleo_max_concurrency: Annotated[int, readers.whole(1, 1000)] = setting(
        "BROKER_PLEO_MAX_CONCURRENCY", "refreshes and imports at once per replica", 50
    )
    pleo_max_rate: Annotated[int, readers.whole(1, 10_000)] = setting(
        "BROKER_PLEO_MAX_RATE",
        "refreshes and imports per second for the fleet, shared by the live replicas",
        50,
    )

    # The life of a grant.
    renew_ahead: Annotated[timedelta, readers.seconds(1, 86_400)] = setting(
        "BROKER_RENEW_AHEAD_SECONDS",
        "how long before expiry a token in use is rotated; at most a third of its lifetime",
        timedelta(seconds=90),
    )
    # Of about two kilobytes each: a hundred megabytes at worst, for more customers than Pleo has.
    max_cached_tokens: Annotated[int, readers.whole(100, 10_000_000)] = setting(
        "BROKER_MAX_CACHED_TOKENS",
        "access tokens kept in the memory of each replica; beyond that the oldest is read anew",
        50_000,
    )
    # Pleo keeps a refresh token for at least 60 days (pleo.md, "Lifetimes and rotation").
    keepalive: Annotated[timedelta, readers.days(0.001, 59)] = setting(
        "BROKER_KEEPALIVE_DAYS", "after which an unused grant is rotated", timedelta(days=20)
    )
    # Doubles up to 15 minutes (domain/rejection.py), so it does not start above that.
    rejection_interval: Annotated[timedelta, readers.seconds(1, 900)] = setting(
        "BROKER_REJECTION_INTERVAL_SECONDS",
        "between rotations because callers reported a token rejected; doubles while reports go"
        " on, to 15 minutes",
        timedelta(seconds=30),
    )
    authorization_ttl: Annotated[timedelta, readers.seconds(1, 86_400)] = setting(
        "BROKER_AUTHORIZATION_TTL_SECONDS",
        "how long a started authorization may take",
        timedelta(minutes=10),
    )
    allow_shared_subject: Switch = setting(
        "BROKER_ALLOW_SHARED_SUBJECT",
        "one Pleo company may be under several tenants",
        default=False,
    )
    allow_provider_revoke: Switch = setting(
        "BROKER_ALLOW_PROVIDER_REVOKE",
        "RevokeGrant may delete the installation at Pleo",
        default=False,
    )
    guard_hold: Annotated[timedelta, readers.seconds(1, 604_800)] = setting(
        "BROKER_GUARD_HOLD_SECONDS",
        "how long the guard waits for an engineer (`token-broker guard`) before held grants answer"
        " REAUTH_REQUIRED",
        timedelta(hours=4),
    )
    quarantine: Annotated[timedelta, readers.days(0.001, 365)] = setting(
        "BROKER_QUARANTINE_DAYS",
        "how long the refresh tokens of held grants are kept sealed once these were given up; until"
        " then `token-broker guard discard` takes them back",
        timedelta(days=7),
    )
    attempt_retention: Annotated[timedelta, readers.days(7, 3650)] = setting(
        "BROKER_ATTEMPT_RETENTION_DAYS",
        "how long the history of attempts is kept",
        timedelta(days=14),
    )

    # What it tells.
    log_format: Annotated[LogFormat, readers.one_of(LogFormat)] = setting(
        "BROKER_LOG_FORMAT", "`json` or `console`", LogFormat.JSON
    )
    log_level: Annotated[LogLevel, readers.one_of(LogLevel)] = setting(
        "BROKER_LOG_LEVEL", "`debug`, `info`, `warning` or `error`", LogLevel.INFO
    )
    otlp_endpoint: OptionalUrl = setting(
        "BROKER_OTLP_ENDPOINT",
        "traces, over OTLP/HTTP: the collector's address, as `https://collector:4318`",
        None,
        without="off",
    )

    # How the command line finds a running broker.
    address: RequiredText = setting(
        "BROKER_ADDRESS", "for the command line: the broker to call", "127.0.0.1:50051"
    )
    ca_file: OptionalPath = setting(
        "BROKER_CA_FILE",
        "for the command line: who signs the broker's certificate",
        None,
        without="off: no TLS",
    )
    client_cert_file: OptionalPath = setting(
        "BROKER_CLIENT_CERT_FILE",
        "for the command line: its certificate",
        None,
        without="off",
    )
    client_key_file: OptionalPath = setting(
        "BROKER_CLIENT_KEY_FILE", "for the command line: its certificate's key", None, without="off"
    )

    @property
    def has_identities(self) -> bool:
        """Whether callers can say who they are, by certificate or by token."""
        return self.tls_client_ca_file is not None or self.jwt_issuer is not None

    @property
    def allows_anonymous(self) -> bool:
        """Whether callers without identity are let in: as set, else as `anonymous` says."""
        if self.anonymous is not None:
            return self.anonymous
        is_guarded = self.has_identities or self.tls_cert_file or self.policy_file
        return self.grpc_address.is_loopback and not is_guarded
