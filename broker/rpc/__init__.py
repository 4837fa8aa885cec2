"""The gRPC edge: messages to values and back, errors to statuses, and no decisions.

What a call means is decided in `service/`, which this room reaches only through `ports`. All
calls pass `edge.py`; all failures become statuses in `status.py`.
"""
