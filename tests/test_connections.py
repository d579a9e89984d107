"""What `regfs login` keeps on disk, and which connection a text on the command line means."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.config import Settings
from regfs.connection import Connection
from regfs.connections import ConnectionStore, all_connections, find_connection
from regfs.errors import ConfigError

WORK = Connection(
    "work",
    "registry.example.com/prefix",
    "generic",
    "basic",
    "ann",
    insecure=True,
    ca=Path("/etc/own.pem"),
    namespaces=("library",),
    only=("team/*",),
    allow_hosts=("storage.internal:9000",),
    tag_delete="native",
    options=(("region", "eu"),),
    generation="7",
)
LOCAL = Connection("localhost_5000", "localhost:5000")


@pytest.fixture
def store(tmp_path: Path) -> ConnectionStore:
    return ConnectionStore(tmp_path / "regfs" / "connections.json")


def test_a_connection_comes_back_as_it_was(store: ConnectionStore) -> None:
    assert store.load() == ()
    store.save(WORK)
    store.save(LOCAL)
    assert store.load() == (WORK, LOCAL)


def test_a_new_login_replaces_the_old_one_in_its_place(store: ConnectionStore) -> None:
    for connection in (WORK, LOCAL, replace(WORK, username="bob")):
        store.save(connection)
    assert [c.username for c in store.load()] == ["bob", ""]


def test_removing_says_whether_there_was_one(store: ConnectionStore) -> None:
    store.save(WORK)
    assert store.remove("work")
    assert not store.remove("work")
    assert store.load() == ()


def test_an_address_that_no_provider_would_take_can_be_removed(store: ConnectionStore) -> None:
    store.save(replace(LOCAL, address="!! no address !!", provider="gone"))
    assert store.remove(LOCAL.name)


def test_the_file_is_the_owners_alone_and_holds_only_what_was_said(store: ConnectionStore) -> None:
    store.save(LOCAL)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert json.loads(store.path.read_text())["connections"] == [
        {"name": "localhost_5000", "address": "localhost:5000"}
    ]


@pytest.mark.parametrize(
    "connection",
    [
        replace(LOCAL, address="ann:hunter2secret@localhost:5000"),
        replace(LOCAL, address="https://ann:hunter2secret@localhost:5000/x"),
        replace(LOCAL, options=(("client_secret", "hunter2secret"),)),
        replace(LOCAL, name="../x"),
        replace(LOCAL, name=".regfs"),
    ],
)
def test_what_may_not_be_kept_is_refused_before_anything_is_written(
    store: ConnectionStore, connection: Connection
) -> None:
    with pytest.raises(ConfigError) as caught:
        store.save(connection)
    assert "hunter2secret" not in str(caught.value)
    assert not store.path.exists()


def test_a_running_mount_notices_each_change(store: ConnectionStore) -> None:
    seen = {store.fingerprint()}
    for change in (lambda: store.save(WORK), lambda: store.save(LOCAL), lambda: store.remove("work")):
        change()
        assert store.fingerprint() not in seen
        assert store.fingerprint() == store.fingerprint()
        seen.add(store.fingerprint())


def test_sign_ins_at_the_same_time_are_all_kept(store: ConnectionStore) -> None:
    names = [f"r{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: ConnectionStore(store.path).save(Connection(name, "h")), names))
    assert sorted(c.name for c in store.load()) == sorted(names)
    assert {path.name for path in store.path.parent.iterdir()} == {
        "connections.json",
        "connections.json.lock",
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"version": 2, "connections": []}',
        b'{"version": 1, "connections": [3]}',
        b'{"version": 1, "connections": [{"name": "a"}]}',
        b'{"version": 1, "connections": [{"name": "a", "address": "h", "only": "x"}]}',
        b'{"version": 1, "connections": [{"name": "a/b", "address": "h"}]}',
        b"[" * 100_000,
        b" " * 2_000_000,
        b"\xff",
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(store: ConnectionStore, content: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    for call in (store.load, lambda: store.save(LOCAL)):
        with pytest.raises(ConfigError, match=r"connections\.json is damaged .*regfs login"):
            call()
    assert store.path.read_bytes() == content


def test_what_a_newer_regfs_added_is_passed_over(store: ConnectionStore) -> None:
    store.path.parent.mkdir()
    store.path.write_text('{"version": 1, "connections": [{"name": "a", "address": "h", "colour": "red"}]}')
    assert store.load() == (Connection("a", "h"),)


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        ConnectionStore(tmp_path / "file" / "connections.json").save(LOCAL)


@given(
    st.builds(
        Connection,
        name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
        address=st.from_regex(r"[a-z0-9.]{1,20}(:[0-9]{1,5})?(/[a-z0-9]{1,5}){0,2}", fullmatch=True),
        username=st.text(st.characters(categories=["L", "N", "P"])),
        insecure=st.booleans(),
        namespaces=st.lists(st.from_regex(r"[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,2}", fullmatch=True)).map(tuple),
        options=st.dictionaries(
            st.sampled_from(["region", "project"]), st.text(max_size=9).filter(str.isprintable)
        ).map(lambda options: tuple(sorted(options.items()))),
    )
)
def test_any_connection_survives_the_file(
    tmp_path_factory: pytest.TempPathFactory, connection: Connection
) -> None:
    store = ConnectionStore(tmp_path_factory.getbasetemp() / "round" / "connections.json")
    store.save(connection)
    assert connection in store.load()


# ── which connections there are ──────────────────────────────────────────────────────────────────


def test_the_config_wins_over_the_store_and_takes_the_sign_in_from_it(store: ConnectionStore) -> None:
    store.save(replace(WORK, username="bob", generation="8", only=()))
    store.save(LOCAL)
    configured = replace(WORK, username="", generation="")
    found = all_connections(Settings(registries=(configured,)), store)
    assert found == (replace(configured, username="bob", generation="8"), LOCAL)


def test_a_sign_in_for_another_address_does_not_count(store: ConnectionStore) -> None:
    store.save(replace(WORK, address="other.example", username="bob", generation="8"))
    configured = replace(WORK, username="", generation="")
    assert all_connections(Settings(registries=(configured,)), store) == (configured,)


# ── what a text means ────────────────────────────────────────────────────────────────────────────

HUB = Connection("hub", "docker.io")
QUAY = Connection("quay.io", "quay.io")
TEAM = Connection("team", "quay.io/team")
FOLDER = Connection("images", "oci:/srv/Images")
IPV6 = Connection("six", "[::1]:5000")
ALL = (WORK, LOCAL, HUB, QUAY, TEAM, FOLDER, IPV6)


@pytest.mark.parametrize(
    ("text", "connection", "rest"),
    [
        ("hub", HUB, ""),
        ("hub/library/alpine", HUB, "library/alpine"),
        ("docker.io/library/alpine", HUB, "library/alpine"),
        ("localhost:5000/", LOCAL, ""),
        ("localhost_5000/team/app/v1", LOCAL, "team/app/v1"),
        ("http://LOCALHOST:5000/team", LOCAL, "team"),
        ("https://registry.example.com/prefix/team/App", WORK, "team/App"),
        ("quay.io/team/app", TEAM, "app"),
        ("quay.io/teams/app", QUAY, "teams/app"),
        ("oci:/srv/Images/team/app", FOLDER, "team/app"),
        ("[::1]:5000/app", IPV6, "app"),
    ],
)
def test_a_text_means_the_longest_name_or_address_that_it_begins_with(
    text: str, connection: Connection, rest: str
) -> None:
    assert find_connection(text, ALL) == (connection, rest)
    assert find_connection(text, iter(ALL)) == (connection, rest)


@pytest.mark.parametrize(
    "text", ["", "hubs", "localhost:50001/x", "localhost", "registry.example.com", "oci:/srv/images", "x/hub"]
)
def test_a_text_that_begins_with_none_means_none(text: str) -> None:
    assert find_connection(text, ALL) is None


def test_of_two_accounts_on_a_host_the_name_says_which() -> None:
    ann, bob = Connection("ann", "h.example", username="ann"), Connection("bob", "h.example", username="bob")
    assert find_connection("bob/app", (ann, bob)) == (bob, "app")
    assert find_connection("h.example/app", (ann, bob)) == (ann, "app")
