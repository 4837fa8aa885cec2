"""Which servers an address of PostgreSQL names."""

from __future__ import annotations

import pytest

from broker.store.hosts import Host, hosts_of, wanted_of


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@h1:1,h2,[::1]:3/d", [("h1", 1), ("h2", 5432), ("::1", 3)]),
        ("postgresql://u@h1/d", [("h1", 5432)]),
        ("postgresql://u@%2Frun%2Fpg/d", [("/run/pg", 5432)]),
        ("postgresql://u@/d?host=h1,h2:2&port=7", [("h1", 7), ("h2", 2)]),
        ("postgresql://u@/d?host=/run/a,/run/b&port=1,2", [("/run/a", 1), ("/run/b", 2)]),
    ],
)
def test_hosts_are_those_of_the_address_each_with_its_port(
    url: str, hosts: list[tuple[str, int]]
) -> None:
    assert hosts_of(url) == [Host(name=name, port=port) for name, port in hosts]


@pytest.mark.parametrize("url", ["postgresql://h:x/d", "postgresql:///d?host=a,b&port=1,2,3"])
def test_ports_that_do_not_fit_their_hosts_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|zip"):
        hosts_of(url)


def test_who_can_write_is_wanted_unless_the_address_says_otherwise() -> None:
    assert wanted_of("postgresql://h1,h2/d") == "read-write"
    assert wanted_of("postgresql://h1,h2/d?target_session_attrs=primary") == "primary"
