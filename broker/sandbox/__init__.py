"""A stand-in for Pleo that can be made to misbehave: a test instrument, and never Pleo.

It decides what a strict authorization server would, records every presentation of every refresh
token, and is how the broker's laws are checked from outside. It knows nothing of the broker: it
imports none of its other rooms, so that a misunderstanding there is not repeated here.

    async with sandbox_server() as sandbox:
        print(sandbox.url)

The way in is `broker.sandbox.server`; faults are made with `broker.sandbox.faults`.
"""
