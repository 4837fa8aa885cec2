"""Connect to Pleo: what a web tier does so that its customers can connect their Pleo company.

    .venv/bin/python -m deploy.examples.connect

Beside `make run`, whose sandbox sends browsers back to this address. One page shows who must
connect again; the rest is the way to Pleo and back, with what a customer may meet on it. No token
passes here: the broker exchanges the code, and keeps what it gets.

Here the tenant is typed into a form. A product takes it from whom it has signed in, and from
nothing else: whoever may choose the tenant may attach a company to it.
"""
