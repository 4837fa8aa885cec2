"""How PostgreSQL's certificate is checked, as the settings say."""

from __future__ import annotations

import ssl

from broker.config.addresses import DatabaseUrl
from broker.config.settings import Settings


def database_tls(settings: Settings) -> ssl.SSLContext | None:
    """Returns what to give the driver; None: nothing, the address says it all.

    With `sslmode=verify-full` and no authority of its own in the address, the driver would look for
    one in the home directory, and refuse to connect without.

    Raises:
        OSError: BROKER_DATABASE_CA_FILE cannot be read, or is no certificate (`ssl.SSLError`).
        SecretUnreadableError: the address cannot be read again.
    """
    if settings.database_url is None:
        return None
    url = DatabaseUrl.read(settings.database_url.read().reveal())
    is_bare = url.sslmode == "verify-full" and not url.has_root_certificate
    if settings.database_ca_file is None and not is_bare:
        return None
    context = ssl.create_default_context(cafile=settings.database_ca_file)
    if url.certificate:  # given a context, the driver no longer reads the address's own
        context.load_cert_chain(url.certificate, url.certificate_key or None)
    return context
