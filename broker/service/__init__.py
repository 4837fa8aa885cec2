"""The story of a token: obtain, coalesce, refresh, settle; consent, import, revoke.

Knows `domain/` and the ports; no driver, no message, no setting's name. Every moment at which
something is awaited is a moment at which the process may die: what must be true then is in
PostgreSQL already.
"""
