"""Names of registries, repositories and tags: the grammar, and what it keeps out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.reference import (
    Address,
    Reference,
    connection_name,
    is_component,
    is_connection_name,
    is_fallback_tag,
    is_repository,
    is_tag,
    split_reference,
)

DIGEST = Digest.of(b"content")
COMPONENTS = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda c: len(c) < 60)
TAGS = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)

# The distribution specification's own words, "Pulling manifests".
SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
SPEC_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)


@given(st.text() | st.text("ab0._-/A:@ \n", max_size=12))
def test_names_and_tags_are_those_of_the_specification(text: str) -> None:
    assert is_repository(text) == (SPEC_NAME.fullmatch(text) is not None and len(text) <= 255)
    assert is_tag(text) == (SPEC_TAG.fullmatch(text) is not None)
    assert is_component(text) == (is_repository(text) and "/" not in text)


@given(st.lists(COMPONENTS, min_size=1, max_size=4))
def test_components_joined_are_a_repository(components: list[str]) -> None:
    name = "/".join(components)
    assert is_repository(name) == (len(name) <= 255)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        ".",
        "..",
        "a/../b",
        "A",
        "a_",
        "a___b",
        "a..b",
        "a\n",
        "\u0430",
        "a" * 256,
    ],
)
def test_what_is_no_repository(text: str) -> None:
    assert not is_repository(text)


@pytest.mark.parametrize("text", ["", ".", "..", "-a", ".a", "a/b", "a:b", "v1\n", "a" * 129, "\u0661"])
def test_what_is_no_tag(text: str) -> None:
    assert not is_tag(text)


@pytest.mark.parametrize("name", [".regfs", ".digests", ".tags", ".repos", "a:b", "a@b"])
def test_names_that_regfs_keeps_for_itself_can_be_no_ones_else(name: str) -> None:
    assert not is_repository(name)
    assert not is_tag(name)
    assert not is_connection_name(name)


def test_a_fallback_tag_is_known_by_its_form() -> None:
    assert is_fallback_tag(DIGEST.file_name)
    for cosigns in (".sig", ".att", ".sbom"):
        assert is_fallback_tag(DIGEST.file_name + cosigns)
    for no_fallback in (".txt", "-sig", ".sig.sig", "0"):
        assert not is_fallback_tag(DIGEST.file_name + no_fallback)
    assert not is_fallback_tag("v1")


def test_long_hostile_names_are_refused_at_once() -> None:
    begin = time.process_time()
    for text in ("a" * 1_000_000, "a-" * 500_000, "a_" * 500_000, "a/" * 500_000, "-" * 1_000_000):
        assert not is_repository(text)
        assert not is_component(text)
        assert not is_tag(text)
        assert split_reference(text + ":") is None
    assert time.process_time() - begin < 1.0


# ── pasted references ────────────────────────────────────────────────────────────────────────────


@given(COMPONENTS, TAGS)
def test_a_pasted_reference_is_split_at_its_tag_or_digest(name: str, tag: str) -> None:
    assert split_reference(f"{name}:{tag}") == (name, tag)
    assert split_reference(f"{name}@{DIGEST}") == (name, DIGEST)
    assert split_reference(f"{name}:{tag}@{DIGEST}") == (name, DIGEST)
    assert split_reference(name) is None


@pytest.mark.parametrize(
    "text",
    ["", ":", "@", "app:", ":v1", "app@", "app@sha256:0", "app@md5:00", "A:v1", "a:b:c", f"A@{DIGEST}", "app@v1",
     f"app:@{DIGEST}", f"app:-bad@{DIGEST}"],
)  # fmt: skip
def test_what_is_no_pasted_reference(text: str) -> None:
    assert split_reference(text) is None


def test_a_reference_is_spelled_as_clients_read_it() -> None:
    assert str(Reference("localhost:5000", "team/app")) == "localhost:5000/team/app"
    assert str(Reference("h", "app", "v1", DIGEST)) == f"h/app:v1@{DIGEST}"


# ── addresses ────────────────────────────────────────────────────────────────────────────────────

HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]{1,5}){0,3}", fullmatch=True)
PREFIXES = st.lists(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,5}", fullmatch=True), max_size=3).map(
    "/".join
)


@given(
    HOSTS | st.ip_addresses().map(str),
    st.none() | st.integers(1, 65535),
    PREFIXES,
    st.sampled_from(["", "http", "https"]),
)
def test_an_address_survives_being_written_down(
    host: str, port: int | None, prefix: str, scheme: str
) -> None:
    address = Address(host, port, prefix, scheme)
    text = f"{scheme}://{address}" if scheme else str(address)
    assert Address.parse(text) == address
    assert Address.parse(f" {text}/ ") == address


@pytest.mark.parametrize(
    ("text", "host", "port", "prefix"),
    [
        ("localhost", "localhost", None, ""),
        ("LOCALHOST:5000", "localhost", 5000, ""),
        ("https://Host.Example/Pre/Fix/", "host.example", None, "Pre/Fix"),
        ("[::1]:5000", "::1", 5000, ""),
        ("[FE80::1]/x", "fe80::1", None, "x"),
        ("host.example.", "host.example.", None, ""),
        ("my_host:80", "my_host", 80, ""),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int | None, prefix: str) -> None:
    found = Address.parse(text)
    assert (found.host, found.port, found.prefix) == (host, port, prefix)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "http://", "https:///x", "ftp://host", ":5000", "host:", "host:0", "host:65536", "host:-1", "host:5000000000000000",
        "host:50 00", "a b", "host\n", "ho\nst", "host/..", "host/a//b", "host/./b", "host/a?b", "host/a#b", "host/a%2fb", "host/a b", "host/a\\b",
        "[::1", "::1", "[localhost]", "[::1]x", "[]", "-host", "host-", "a..b", ".", "..", "a" * 300, "host:\uff15\uff10",
        "ann@host", "ann:pw@host", "https://ann:pw@host/x", "[::1%25eth0]", "[::1%eth0]",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_reason(text: str) -> None:
    if text == "host\n":
        assert Address.parse(text).host == "host"
        return
    with pytest.raises(ValueError, match=r".") as caught:
        Address.parse(text)
    assert "pw" not in str(caught.value)


@given(st.text() | st.text("ab1:/.[]@?#%\\ \n-", max_size=20))
def test_any_text_is_an_address_that_can_stand_in_a_url_or_is_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == Address(address.host, address.port, address.prefix)
    assert re.fullmatch(r"[A-Za-z0-9_.:\[\]-]+", address.authority)
    assert (
        not re.search(r"[\s?#%\\@]|\.\.(/|$)", str(address).partition("/")[1] + address.prefix)
        or "@" in address.prefix
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "registry.localhost", "::1"])
def test_loopback_is_known(host: str) -> None:
    assert Address(host).is_loopback


@pytest.mark.parametrize(
    "host", ["localhost.example", "notlocalhost", "10.0.0.1", "0.0.0.0", "127.example", "::2"]
)
def test_what_is_no_loopback(host: str) -> None:
    assert not Address(host).is_loopback


@given(st.text())
def test_any_address_makes_a_folder_name_that_holds_no_colon(text: str) -> None:
    name = connection_name(text)
    assert is_connection_name(name)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("localhost:5000", "localhost_5000"),
        ("https://host.example/prefix/", "host.example_prefix"),
        ("[::1]:5000", "1_5000"),
        ("oci:/srv/images", "oci_srv_images"),
        ("", "registry"),
    ],
)
def test_a_registrys_folder_is_called_like_its_address(address: str, name: str) -> None:
    assert connection_name(address) == name
