"""Where a registry is, and which scheme it is asked by."""

from __future__ import annotations

import pytest

from regfs.connection import Connection
from regfs.errors import ConfigError, Refused, UnsafeTarget
from regfs.registry.redirects import Origin
from regfs.registry.site import Site


def site(address: str, *, insecure: bool = False) -> Site:
    return Site(Connection("r", address, insecure=insecure))


@pytest.mark.parametrize(
    ("address", "insecure", "schemes"),
    [
        ("r.example", False, ("https",)),
        ("r.example:5000", True, ("https", "http")),
        ("https://r.example", True, ("https",)),
        ("localhost:5000", False, ("http", "https")),
        ("127.0.0.1:5000", True, ("http", "https")),
        ("https://localhost", False, ("https",)),
        ("http://localhost:5000", False, ("http",)),
    ],
)
def test_the_schemes_that_are_tried(address: str, insecure: bool, schemes: tuple[str, ...]) -> None:
    assert site(address, insecure=insecure).schemes == schemes


def test_plain_http_needs_the_users_word() -> None:
    with pytest.raises(Refused, match="--insecure"):
        site("http://r.example").check()
    site("http://r.example", insecure=True).check()
    site("http://localhost").check()


def test_the_first_answer_decides() -> None:
    place = site("localhost:5000")
    place.settle("https")
    place.settle("http")
    assert place.schemes == ("https",)


def test_a_prefix_stands_before_v2() -> None:
    place = site("r.example:5000/art/docker")
    assert place.base() == "https://r.example:5000/art/docker/v2/"
    assert place.url("app/tags/list?n=5", "https") == "https://r.example:5000/art/docker/v2/app/tags/list?n=5"
    own = Origin("https", "r.example", 5000)
    assert place.api_path(own, "/art/docker/v2/app/tags/list") == "app/tags/list"
    assert place.api_path(own, "/v2/app/tags/list") is None
    assert place.api_path(Origin("https", "other.example", 5000), "/art/docker/v2/x") is None


def test_an_ipv6_host_keeps_its_brackets() -> None:
    assert site("[::1]:5000").base() == "http://[::1]:5000/v2/"


@pytest.mark.parametrize("target", ["../x", "a/../../b", "/etc", "a/./b"])
def test_a_target_stays_below_v2(target: str) -> None:
    with pytest.raises(UnsafeTarget):
        site("r.example").url(target, "https")


def test_an_address_that_is_none_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(ConfigError):
        site("r.example:port")
