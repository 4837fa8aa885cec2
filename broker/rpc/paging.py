"""Page tokens: where the next page of a list begins, and which list that is.

Opaque to callers, the same on every replica, and of no use with other filters than those they were
made for: a poller that changes its filter half way would miss grants without a sign. They are not
authenticated, because a forged one only begins a list elsewhere, of which its caller is shown no
more than the policy allows. A tenant that is not allowed is in no token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from broker.domain.fields import check_tenant
from broker.ports import ListQuery

# Grows when what a token means changes; an older one is then a bad one, and the list begins anew.
_VERSION: Final = b"\x01"

# 96 bits, against accidents rather than forgers.
_DIGEST_BYTES: Final = 12
_HEAD_BYTES: Final = len(_VERSION) + _DIGEST_BYTES


def page_token(query: ListQuery, *, last_tenant: str) -> str:
    """Returns the token of the page that follows `last_tenant` in the list of `query`."""
    return base64.urlsafe_b64encode(_head(query, last_tenant) + last_tenant.encode()).decode()


def read_page_token(token: str, query: ListQuery) -> str | None:
    """Returns after which tenant the page begins; None: not a token of this list."""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        tenant = raw[_HEAD_BYTES:].decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    # Both: the digest tells another list's token, the check one that somebody has made up.
    is_ours = raw[:_HEAD_BYTES] == _head(query, tenant) and check_tenant(tenant) is None
    return tenant if is_ours else None


def _head(query: ListQuery, tenant: str) -> bytes:
    """Says which list it is; how long its pages are may change on the way (AIP-158)."""
    since = "" if query.updated_after is None else query.updated_after.isoformat()
    bound = "|".join([tenant, since, *sorted(query.states)])
    return _VERSION + hashlib.sha256(bound.encode()).digest()[:_DIGEST_BYTES]
