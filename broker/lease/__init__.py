"""Redis: leases that spare the herd, and news between replicas. Decides nothing (law 6).

Whatever Redis does, or stops doing, nothing of redis-py's leaves this room: leases answer
`UNREACHABLE`, announcements are lost, and both are slower by their timeouts at most.
"""
