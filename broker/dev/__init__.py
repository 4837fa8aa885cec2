"""What a developer's machine runs beside the broker: real stores, in a directory that the run owns.

Nothing of the server imports this room; only the command line does. It changes nothing outside the
run's directory.
"""
