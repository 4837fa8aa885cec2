"""Pleo: its token endpoint and its API, over HTTP. Implements `ports.Provider`.

Decides nothing about grants: `domain.token_response` says what an answer means.
"""
