"""A token broker for the tests of a service that calls one: real gRPC, nothing behind it.

    async with fake_broker() as broker:                 # or `with fake_broker_thread() as broker:`
        broker.connect("acme")
        async with TokenClient(broker.address) as client:
            await client.get("acme")
            broker.rotate("acme")                       # as Pleo and the broker would
            broker.require_reauth("acme")               # ReauthRequired from now on
            broker.connect("acme")                      # as after a new consent
            broker.fail("acme", "GRANT_HELD")           # any reason of TokenService
            with broker.outage():                       # PROVIDER_UNAVAILABLE, or the one given
                ...
            broker.asked, broker.handed_out             # what the service did

A fake of Pleo's API compares what it is sent with `broker.access_token("acme")`. Connected with
`lifetime=timedelta(0)` a tenant has a planned rotation at every call.

With pytest the fixture `fake_token_broker` is there as soon as the package is installed, and costs
nothing where no test asks for it; it works for blocking and for asynchronous tests.

The calls are answered by the broker's own servicers, over tenants in memory: statuses, details,
trailers, watches and their order are the real ones. What it has not: a Pleo, consent, a policy, or
any life after the test.

Needs `pleo-token-broker[testing]`: gRPC's health and reflection, no PostgreSQL or Redis.
"""

try:
    from broker.testing.fake_broker import FakeTokenBroker
    from broker.testing.serving import fake_broker, fake_broker_thread
except ModuleNotFoundError as missing:
    if missing.name not in {"grpc_health", "grpc_reflection"}:
        raise
    raise ModuleNotFoundError(
        "broker.testing needs the extra `testing`: pip install 'pleo-token-broker[testing]'",
        name=missing.name,
    ) from missing

__all__ = ["FakeTokenBroker", "fake_broker", "fake_broker_thread"]
