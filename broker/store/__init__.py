"""PostgreSQL: the only authority over grants.

Holds no rule about grants: it writes rows whole, by compare-and-set, as `domain/` decided. Nothing
in clear goes in (law 7), no error of the driver comes out (`failures.py`), and no time but
PostgreSQL's is read. Nothing rests on a session: no session locks, no cached statements, so that a
pooler may stand in between (`connecting.py`).
"""
