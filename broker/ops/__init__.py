"""What the broker shows of itself: health, metrics, logs. It watches, and changes nothing.

No token is in any of it (law 7), and over HTTP, which asks nobody who they are, no tenant, caller
or grant either.
"""
