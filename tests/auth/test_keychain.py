"""The keychain: sources in order, failures passed over, and the words for what went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from regfs.auth.keychain import OrderedKeychain, default_keychain
from regfs.auth.sources.file import FileSource
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind
from tests.auth.drive import BOB, IDENTITY, NEW_BOB


@dataclass
class FixedSource:
    name: str
    given: Credential | Exception | None = None
    asked: int = 0

    async def get(self, _: Connection) -> Credential | None:
        self.asked += 1
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def ask(*sources: FixedSource | FileSource, username: str = "") -> Credential | None:
    connection = Connection(name="reg", address="reg.example", username=username)
    return trio.run(OrderedKeychain(sources).get, connection)


def test_the_first_source_that_has_one_wins_and_the_rest_is_not_asked() -> None:
    last = FixedSource("c", NEW_BOB)
    assert ask(FixedSource("a"), FixedSource("b", BOB), last) == BOB
    assert last.asked == 0


def test_a_source_that_fails_in_any_way_stops_no_other() -> None:
    failing = [
        FixedSource("a", CredentialError("a is locked")),
        FixedSource("b", RuntimeError("secret text")),
    ]
    assert ask(*failing, FixedSource("c", BOB)) == BOB
    with pytest.raises(CredentialError, match=r"^a is locked; b failed \(RuntimeError\)$") as caught:
        ask(*failing, FixedSource("c"))
    assert "secret text" not in str(caught.value)


def test_having_none_is_no_failure() -> None:
    assert ask() is None
    assert ask(FixedSource("a"), FixedSource("b")) is None


def test_another_users_password_is_passed_over(tmp_path: Path) -> None:
    alice = Credential("alice", "x")
    assert ask(FixedSource("a", BOB), FixedSource("b", alice), username="alice") == alice
    assert ask(FixedSource("a", BOB), username="alice") is None
    assert ask(FixedSource("a", IDENTITY), username="alice") == IDENTITY
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_text("username=bob\npassword=x")
    found = ask(FileSource(path), username="alice")
    assert found is not None
    assert found.username == "bob"


@pytest.mark.parametrize(
    "credential",
    [
        Credential("bob", "a\nb"),
        Credential("bo\0b", "x"),
        Credential("bo:b", "x"),
        Credential("bob", "\ud800"),
        Credential("bob", ""),
        Credential("", "a b", CredentialKind.IDENTITY_TOKEN),
        Credential("", "a\r\nX: y", CredentialKind.REGISTRY_TOKEN),
        Credential("", "x" * 100_000, CredentialKind.REGISTRY_TOKEN),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is(credential: Credential) -> None:
    with pytest.raises(CredentialError, match="cannot be sent"):
        ask(FixedSource("a", credential))


def test_the_order_of_regfs_own_sources(tmp_path: Path) -> None:
    names = [source.name for source in default_keychain(tmp_path / "file").sources]
    assert names[0] == str(tmp_path / "file")
    assert names[1:3] == ["systemd credential", "keyring"]
    assert names[3].endswith("config.json")
    assert names[4] == "containers' auth.json"
    assert len(default_keychain(None).sources) == 4
