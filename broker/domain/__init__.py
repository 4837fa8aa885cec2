"""The rules of the broker, pure.

Nothing here reads a clock, draws a random number, logs, or does I/O: `now` and jitter are
parameters, and what happened is a returned value. Nothing outside the standard library is
imported, and nothing of the other rooms.
"""
