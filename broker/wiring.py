"""From settings to what each room wants to be told: small pure functions, and nothing is opened.

The one place that knows both. `serve` puts its rooms together with these, and `doctor` looks at the
world through them, so that what it finds good is what `serve` will use.
"""

from __future__ import annotations

from dataclasses import replace

from broker import __version__
from broker.config import PleoEnvironment, ServeSettings, Settings
from broker.config.transport import database_tls
from broker.domain.secret import ClientSecret
from broker.domain.times import AttemptTimes
from broker.lease.address import prefix_of
from broker.lease.client import RedisClient
from broker.lease.times import lease_times
from broker.pleo.environments import ENVIRONMENTS, Environment
from broker.pleo.settings import ProviderSettings
from broker.ports import Observer
from broker.service.foundation import Options
from broker.service.starting import Registration
from broker.store.home import Home
from broker.store.pool import PoolSettings


def pool_settings(settings: ServeSettings) -> PoolSettings:
    """Returns where PostgreSQL is. The address is read anew for each connection.

    Raises:
        OSError: BROKER_DATABASE_CA_FILE cannot be read, or is no certificate (`ssl.SSLError`).
        SecretUnreadableError: the address cannot be read again.
    """
    source = settings.database_url
    return PoolSettings(url=lambda: source.read().reveal(), tls=database_tls(settings))


def redis_client(settings: ServeSettings, *, observer: Observer | None = None) -> RedisClient:
    """Returns a client that connects when something is asked; enter it to use it.

    Raises:
        RedisUrlRefused: the address cannot be used.
        SecretUnreadableError: the address cannot be read again.
    """
    source = settings.redis_url
    return RedisClient(
        lambda: source.read().reveal(),
        ca_file=settings.redis_ca_file,
        times=lease_times(AttemptTimes(http_timeout=settings.pleo_timeout)),
        observer=observer,
    )


def redis_prefix(settings: ServeSettings) -> str:
    """Returns what all our keys and channels in Redis begin with.

    Raises:
        SecretUnreadableError: the address cannot be read.
    """
    return prefix_of(settings.redis_url.read().reveal(), settings.home)


def pleo(settings: Settings) -> Environment:
    """Returns where Pleo is: of the environment, or as set. An empty API URL turns it off."""
    match settings.pleo_environment:
        case PleoEnvironment.STAGING:
            return _with_api(ENVIRONMENTS["staging"], settings.pleo_api_url)
        case PleoEnvironment.PRODUCTION:
            return _with_api(ENVIRONMENTS["production"], settings.pleo_api_url)
        case PleoEnvironment.CUSTOM:
            return Environment(
                # The rules of the settings want all three with `custom`.
                authorize_url=settings.pleo_authorize_url or "",
                token_url=settings.pleo_token_url or "",
                api_url=settings.pleo_api_url or None,
            )


def provider_settings(settings: ServeSettings) -> ProviderSettings:
    """Returns our client at Pleo. The secret is read anew for each token request."""
    addresses, source = pleo(settings), settings.pleo_client_secret
    return ProviderSettings(
        authorize_url=addresses.authorize_url,
        token_url=addresses.token_url,
        api_url=addresses.api_url,
        client_id=settings.pleo_client_id,
        client_secret=lambda: ClientSecret(source.read()),
        client_auth=settings.pleo_client_auth.value,
        authorize_params=settings.pleo_authorize_params,
        max_concurrency=settings.pleo_max_concurrency,
    )


def home(settings: ServeSettings) -> Home:
    """Returns which installation this is."""
    return Home(
        name=settings.home,
        environment=settings.pleo_environment.value,
        token_url=pleo(settings).token_url,
        client_id=settings.pleo_client_id,
    )


def _with_api(known: Environment, api_url: str | None) -> Environment:
    """Where an environment has addresses of its own, a set API URL can only be empty."""
    return known if api_url is None else replace(known, api_url=api_url or None)


def service_options(settings: ServeSettings, *, replica: str) -> Options:
    """Returns what the service is told; `replica`: the name of this one."""
    return Options(
        replica=replica,
        registration=Registration(
            redirect_uris=settings.pleo_redirect_uris,
            scopes=settings.pleo_scopes,
            time_to_live=settings.authorization_ttl,
        ),
        http_timeout=settings.pleo_timeout,
        renew_ahead=settings.renew_ahead,
        rejection_interval=settings.rejection_interval,
        max_concurrency=settings.pleo_max_concurrency,
        max_rate=settings.pleo_max_rate,
        max_cached_tokens=settings.max_cached_tokens,
        guard_hold=settings.guard_hold,
        quarantine=settings.quarantine,
        build=__version__,
        may_delete_at_provider=settings.allow_provider_revoke,
    )
