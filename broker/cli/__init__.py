"""The command line. `app` says which commands there are, and how each of them ends.

A command is declared where all it imports is typer (`installation`, `keys`, `tenants`), and done in
a module that is imported when it is called: who only wants help, or a token, does not wait for the
drivers of a server.
"""
