"""Credentials in files: an explicit one, systemd's, Docker's and containers'."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.auth.docker_file import DockerFile
from regfs.auth.places import canonical, keys_for
from regfs.auth.sources.containers_auth import ContainersAuthSource
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.auth.sources.file import FileSource
from regfs.auth.sources.systemd import SystemdSource
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialSource

SECRET = "a secret: with = and #"


def connection(address: str = "reg.example", **more: object) -> Connection:
    return Connection(name="reg", address=address, **more)  # type: ignore[arg-type]


def ask(source: CredentialSource, address: str = "reg.example", **more: object) -> Credential | None:
    return trio.run(source.get, connection(address, **more))


def auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def shown(credential: Credential | None) -> tuple[str, str, str] | None:
    return None if credential is None else (credential.username, credential.secret, credential.kind.name)


# ── an explicit file ──


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f", f"username=bob\npassword={SECRET}\n"),
        ("f", f"# mine\n\nuser = bob\r\npass = {SECRET}\r\n"),
        ("f", f"\ufeffusername=bob\npassword={SECRET}"),
        ("f", f"registry=https://REG.example/v2/\nusername=bob\npassword={SECRET}"),
        ("f.toml", f'username = "bob"\npassword = "{SECRET}"\n'),
        ("f.json", json.dumps({"auths": {"reg.example": auth(f"bob:{SECRET}")}})),
        ("f.json", json.dumps({"auths": {"reg.example": {"username": "bob", "password": SECRET}}})),
    ],
)
def test_each_shape_of_an_explicit_file(tmp_path: Path, name: str, text: str) -> None:
    source = FileSource(private(tmp_path / name, text))
    assert shown(ask(source)) == ("bob", SECRET, "PASSWORD")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("identitytoken=abc", ("", "abc", "IDENTITY_TOKEN")),
        ("username=<token>\npassword=abc", ("", "abc", "IDENTITY_TOKEN")),
        ("registrytoken=abc", ("", "abc", "REGISTRY_TOKEN")),
        ('username=bob\npassword="quoted"', ("bob", '"quoted"', "PASSWORD")),
        ("username=bob\npassword=x\u2028y", ("bob", "x\u2028y", "PASSWORD")),
    ],
)
def test_kinds_of_secrets_in_lines(tmp_path: Path, text: str, expected: tuple[str, str, str]) -> None:
    assert shown(ask(FileSource(private(tmp_path / "f", text)))) == expected


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("f", f"username=bob\n{SECRET}\n", "line 2"),
        ("f", f"username=bob\npasswort={SECRET}\n", "line 2"),
        ("f", f"username=bob\npassword={SECRET}\npassword={SECRET}", "twice"),
        ("f", f"password={SECRET}", "no username"),
        ("f", "username=bob", "must have one of"),
        ("f", f"username=bob\npassword={SECRET}\nidentitytoken={SECRET}", "must have one of"),
        ("f", "", "must have one of"),
        ("f.toml", f'username = "bob"\npassword = "{SECRET}', "no TOML"),
        ("f.toml", f'username = "bob"\nword = "{SECRET}"', "expected"),
        ("f.toml", "password = 12", "expected"),
        ("f.json", '{"auths": {"reg.example": {"password": ["' + SECRET + '"]}}}', "password"),
        ("f.json", '{"auths": {"reg.example": {"auth": "' + SECRET + '"}}}', "base64"),
        ("f.json", '{"auths": "' + SECRET, "no JSON"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_place_and_not_the_secret(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    path = private(tmp_path / name, text)
    with pytest.raises(CredentialError, match=said) as caught:
        ask(FileSource(path))
    error: BaseException | None = caught.value
    assert str(path) in str(error)
    while error is not None:
        assert SECRET not in f"{error!s}{error!r}"
        error = error.__cause__


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o644, 0o777])
def test_a_file_that_others_may_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = private(tmp_path / "f", f"username=bob\npassword={SECRET}")
    path.chmod(mode)
    with pytest.raises(CredentialError, match=f"chmod 600 {path}"):
        ask(FileSource(path))


def test_an_explicit_file_must_be_there_and_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match="there is no credentials file"):
        ask(FileSource(tmp_path / "missing"))
    with pytest.raises(CredentialError, match="not a regular file"):
        ask(FileSource(tmp_path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(CredentialError, match="not a regular file"):
        ask(FileSource(tmp_path / "pipe"))
    big = private(tmp_path / "big", "x" * (1024 * 1024 + 1))
    with pytest.raises(CredentialError, match="1 MiB"):
        ask(FileSource(big))


def test_a_file_without_a_registry_serves_a_single_connection_only(tmp_path: Path) -> None:
    path = private(tmp_path / "f", f"username=bob\npassword={SECRET}")
    assert ask(FileSource(path, single=True), "other.example") is not None
    with pytest.raises(CredentialError, match="registry=HOST"):
        ask(FileSource(path, single=False))


@pytest.mark.parametrize("single", [True, False])
def test_a_file_for_another_registry_has_none_for_this_one(tmp_path: Path, single: bool) -> None:
    path = private(tmp_path / "f", f"registry=reg.example:5000\nusername=bob\npassword={SECRET}")
    assert ask(FileSource(path, single=single), "reg.example") is None
    assert ask(FileSource(path, single=single), "reg.example:5000") is not None


# ── systemd ──


def test_a_systemd_credential_of_the_connections_name_goes_first(tmp_path: Path) -> None:
    source = SystemdSource({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert ask(source) is None
    (tmp_path / "regfs").write_text("username=all\npassword=x")
    assert shown(ask(source)) == ("all", "x", "PASSWORD")
    (tmp_path / "regfs.reg").write_text("username=own\npassword=x")
    assert shown(ask(source)) == ("own", "x", "PASSWORD")
    (tmp_path / "regfs.reg").write_text('{"auths": {"other.example": {"username": "o", "password": "x"}}}')
    assert shown(ask(source)) == ("all", "x", "PASSWORD")
    assert ask(SystemdSource({})) is None


# ── Docker ──


def docker(tmp_path: Path, content: object, **environment: str) -> DockerConfigSource:
    (tmp_path / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return DockerConfigSource({"DOCKER_CONFIG": str(tmp_path), "PATH": str(tmp_path), **environment})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (auth("bob:pa:ss:word"), ("bob", "pa:ss:word", "PASSWORD")),
        (auth("bob:password\0\0"), ("bob", "password", "PASSWORD")),
        (auth("bob:pässword"), ("bob", "pässword", "PASSWORD")),
        ({"username": "bob", "password": "p"}, ("bob", "p", "PASSWORD")),
        (
            {**auth("00000000-0000-0000-0000-000000000000:"), "identitytoken": "abc"},
            ("00000000-0000-0000-0000-000000000000", "abc", "IDENTITY_TOKEN"),
        ),
        ({**auth("<token>:abc")}, ("", "abc", "IDENTITY_TOKEN")),
        ({"registrytoken": "abc"}, ("", "abc", "REGISTRY_TOKEN")),
        ({}, None),
        (auth("bob:"), None),
    ],
)
def test_entries_of_dockers_config(tmp_path: Path, entry: object, expected: object) -> None:
    assert (
        shown(ask(docker(tmp_path, {"auths": {"reg.example": entry}, "HttpHeaders": {"a": "b"}}))) == expected
    )


def test_a_password_is_split_at_the_first_colon() -> None:
    @given(
        st.text(st.characters(codec="utf-8", exclude_characters=":\0"), max_size=10),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10),
    )
    def test(username: str, password: str) -> None:
        entry = {"auths": {"reg.example": auth(f"{username}:{password}")}}
        file = DockerFile.parse(json.dumps(entry).encode(), "a test")
        found = trio.run(file.get, connection())
        assert found is not None
        if username != "<token>":
            assert (found.username, found.secret) == (username, password)

    test()


@pytest.mark.parametrize("address", ["docker.io", "registry-1.docker.io", "index.docker.io"])
@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "https://registry-1.docker.io", "index.docker.io/v1/"]
)
def test_docker_hub_is_one_registry_whatever_it_is_called(tmp_path: Path, address: str, key: str) -> None:
    assert ask(docker(tmp_path, {"auths": {key: auth("bob:x")}}), address) is not None


@pytest.mark.parametrize(
    ("key", "address", "found"),
    [
        ("https://reg.example", "reg.example", True),
        ("https://reg.example/v1/", "reg.example", True),
        ("http://REG.example:5000/v2/", "reg.example:5000", True),
        ("reg.example/v2", "reg.example", True),
        ("reg.example", "reg.example:5000", False),
        ("reg.example:5000", "reg.example", False),
        ("reg.example.evil", "reg.example", False),
        ("reg.example/team", "reg.example", False),
        ("reg.example/team", "reg.example/team", True),
        ("reg.example", "reg.example/team", True),
        ("reg.example/tea", "reg.example/team", False),
        ("[::1]:5000", "[::1]:5000", True),
    ],
)
def test_which_keys_are_a_connections(tmp_path: Path, key: str, address: str, found: bool) -> None:
    assert (ask(docker(tmp_path, {"auths": {key: auth("bob:x")}}), address) is not None) is found


def test_the_longest_key_wins(tmp_path: Path) -> None:
    keys = ["reg.example", "reg.example/team", "reg.example/team/app", "reg.example/ns"]
    source = docker(tmp_path, {"auths": {key: auth(f"{key.replace('/', '-')}:x") for key in keys}})
    users = [
        (ask(source, "reg.example/team/app"), "reg.example-team-app"),
        (ask(source, "reg.example/team/other"), "reg.example-team"),
        (ask(source, "reg.example"), "reg.example"),
        (ask(source, "reg.example", namespaces=("ns",)), "reg.example-ns"),
        (ask(source, "reg.example", namespaces=("ns", "team")), "reg.example"),
    ]
    assert [credential and credential.username for credential, _ in users] == [user for _, user in users]


@given(st.text(max_size=30))
def test_any_text_can_be_a_key(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)
    keys_for(connection(text))


def test_the_variable_beats_the_file_and_the_file_serves_what_it_lacks(tmp_path: Path) -> None:
    given_ = json.dumps({"auths": {"reg.example": auth("env:x")}})
    source = docker(
        tmp_path,
        {"auths": {"reg.example": auth("file:x"), "b.example": auth("file:x")}},
        DOCKER_AUTH_CONFIG=given_,
    )
    assert shown(ask(source)) == ("env", "x", "PASSWORD")
    assert shown(ask(source, "b.example")) == ("file", "x", "PASSWORD")
    with pytest.raises(CredentialError, match="DOCKER_AUTH_CONFIG"):
        ask(docker(tmp_path, {}, DOCKER_AUTH_CONFIG="{"))


def test_dockers_config_is_found_at_home_and_may_be_missing_or_empty(tmp_path: Path) -> None:
    source = DockerConfigSource({"HOME": str(tmp_path)})
    assert ask(source) is None
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text("")
    assert ask(source) is None
    (tmp_path / ".docker/config.json").write_text(json.dumps({"auths": {"reg.example": auth("bob:x")}}))
    assert ask(source) is not None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"auths": []}', '{"auths": {"reg.example": 1}}', "[" * 100_000, "\udc80"]
)
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CredentialError, match=str(tmp_path / "config.json")):
        ask(DockerConfigSource({"DOCKER_CONFIG": str(tmp_path)}))


# ── containers ──


def test_containers_files_are_looked_at_in_their_order(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }
    places = [
        tmp_path / ".dockercfg",
        tmp_path / "config/containers/auth.json",
        tmp_path / "run/containers/auth.json",
    ]
    source = ContainersAuthSource(environment)
    assert ask(source) is None
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        entries = {"reg.example": auth(f"user{number}:x")}
        place.write_text(json.dumps(entries if place.name == ".dockercfg" else {"auths": entries}))
        assert shown(ask(source)) == (f"user{number}", "x", "PASSWORD")
    places[2].write_text("{")
    assert shown(ask(source)) == ("user1", "x", "PASSWORD")
    assert ContainersAuthSource({"HOME": "/h"}).paths[0] == Path(f"/run/containers/{os.getuid()}/auth.json")


def test_a_broken_file_is_told_of_where_no_other_has_a_credential(tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("{")
    with pytest.raises(CredentialError, match=r"auth\.json"):
        ask(ContainersAuthSource({"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json"), "HOME": str(tmp_path)}))


def test_registry_auth_file_is_the_only_one_where_it_is_set(tmp_path: Path) -> None:
    (tmp_path / ".dockercfg").write_text(json.dumps({"reg.example": auth("bob:x")}))
    environment = {"HOME": str(tmp_path), "REGISTRY_AUTH_FILE": str(tmp_path / "none.json")}
    assert ask(ContainersAuthSource(environment)) is None
    (tmp_path / "none.json").write_text(json.dumps({"auths": {"reg.example/ns": auth("ns:x")}}))
    assert shown(ask(ContainersAuthSource(environment), "reg.example/ns")) == ("ns", "x", "PASSWORD")
