"""Proxies by the environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import ConfigError
from regfs.registry.proxies import bypassed, environment, proxy_for
from regfs.registry.redirects import Origin

PROXIES = {"http": "http://p:1", "https": "q:2", "no": ".corp.example,10.0.0.0/8,r.example:5000"}


def origin(host: str, port: int = 443, scheme: str = "https") -> Origin:
    return Origin(scheme, host, port)


def test_each_scheme_has_its_proxy() -> None:
    assert proxy_for(origin("a.example", 80, "http"), PROXIES) == "http://p:1"
    assert proxy_for(origin("a.example"), PROXIES) == "http://q:2"


def test_all_proxy_serves_where_no_other_is_named() -> None:
    assert proxy_for(origin("a.example"), {"all": "socks5://s:3"}) == "socks5://s:3"


@pytest.mark.parametrize("host", ["localhost", "x.localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_never_asked_of_a_proxy(host: str) -> None:
    assert proxy_for(origin(host), PROXIES) is None


@pytest.mark.parametrize(
    ("host", "port", "direct"),
    [
        ("corp.example", 443, True),
        ("a.corp.example", 443, True),
        ("notcorp.example", 443, False),
        ("10.1.2.3", 443, True),
        ("11.1.2.3", 443, False),
        ("r.example", 5000, True),
        ("r.example", 443, False),
    ],
)
def test_no_proxy_names_domains_networks_and_ports(host: str, port: int, direct: bool) -> None:
    assert (proxy_for(origin(host, port), PROXIES) is None) is direct


@pytest.mark.parametrize("entry", ["*", "fd00::/8", "[fd00::1]", "[fd00::1]:443", "fd00::1", " x , FD00::1 "])
def test_no_proxy_knows_ipv6_and_the_star(entry: str) -> None:
    assert bypassed(origin("fd00::1"), entry)


def test_a_proxy_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="https_proxy"):
        proxy_for(origin("a.example"), {"https": "gopher://p"})


def test_the_environment_is_read_in_both_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://upper:1")
    assert environment()["https"] == "http://upper:1"
    monkeypatch.setenv("https_proxy", "http://lower:1")
    assert environment()["https"] == "http://lower:1"


@given(st.text(max_size=40))
def test_any_no_proxy_is_read_without_an_error(text: str) -> None:
    bypassed(origin("r.example"), text)
