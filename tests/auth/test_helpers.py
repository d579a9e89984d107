"""Docker's credential helpers: real programs, good ones and bad ones."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import trio

from regfs.auth import program as running
from regfs.auth.docker import hand_to_docker
from regfs.auth.helper_program import Helper
from regfs.auth.sources.docker_config import DockerConfigSource
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential

SECRET = "the-secret-of-a-helper"
CONNECTION = Connection(name="reg", address="reg.example:5000")
GIVE = f"""#!/bin/sh
read -r server
echo "$1 $server" >> "$0.log"
printf '{{"ServerURL": "%s", "Username": "bob", "Secret": "{SECRET}"}}' "$server"
"""
HAS_NONE = "#!/bin/sh\necho 'credentials not found in native keychain'; exit 1\n"


def program(folder: Path, suffix: str, script: str) -> Path:
    path = folder / f"docker-credential-{suffix}"
    path.write_text(script)
    path.chmod(0o755)
    return path


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{folder}:{os.environ['PATH']}", "DOCKER_CONFIG": str(folder), **more}


def ask(folder: Path, config: object, connection: Connection = CONNECTION) -> Credential | None:
    (folder / "config.json").write_text(json.dumps(config))
    return trio.run(DockerConfigSource(environment(folder)).get, connection)


def get(folder: Path, suffix: str = "x") -> Credential | None:
    return trio.run(Helper(suffix, environment(folder)).get, "reg.example:5000")


def test_the_common_helper_is_asked_for_the_host_once(tmp_path: Path) -> None:
    path = program(tmp_path, "x", GIVE)
    found = ask(tmp_path, {"credsStore": "x"})
    assert found is not None
    assert (found.username, found.secret, found.origin) == ("bob", SECRET, "docker-credential-x")
    assert Path(f"{path}.log").read_text() == "get reg.example:5000\n"


def test_a_hosts_own_helper_goes_first_and_has_the_last_word(tmp_path: Path) -> None:
    program(tmp_path, "own", GIVE.replace("bob", "own"))
    program(tmp_path, "none", HAS_NONE)
    common = program(tmp_path, "x", GIVE)
    found = ask(tmp_path, {"credsStore": "x", "credHelpers": {"reg.example:5000": "own"}})
    assert found is not None
    assert found.username == "own"
    assert ask(tmp_path, {"credsStore": "x", "credHelpers": {"reg.example:5000": "none"}}) is None
    assert not Path(f"{common}.log").exists()


def test_a_helper_that_has_none_leaves_it_to_the_file(tmp_path: Path) -> None:
    program(tmp_path, "x", HAS_NONE)
    entry = {"username": "filed", "password": "x"}
    found = ask(tmp_path, {"credsStore": "x", "auths": {"reg.example:5000": entry}})
    assert found is not None
    assert found.username == "filed"
    assert ask(tmp_path, {"credsStore": "x", "auths": {"reg.example:5000": {}}}) is None


@pytest.mark.parametrize("config", [{"credsStore": "x"}, {"credHelpers": {"docker.io": "x"}}])
def test_docker_hub_is_asked_for_as_docker_does(tmp_path: Path, config: object) -> None:
    path = program(tmp_path, "x", GIVE)
    ask(tmp_path, config, Connection(name="hub", address="docker.io"))
    assert Path(f"{path}.log").read_text() == "get https://index.docker.io/v1/\n"


def test_a_token_is_told_by_its_user_name(tmp_path: Path) -> None:
    program(tmp_path, "x", GIVE.replace('"bob"', '"<token>"'))
    found = get(tmp_path)
    assert found is not None
    assert (found.username, found.kind.value) == ("", "identity token")


@pytest.mark.parametrize("suffix", ["", "../x", "x y", "x;id", "x\n", "$(id)", "x/y", "é"])
def test_what_is_no_suffix_is_never_run(suffix: str) -> None:
    with pytest.raises(CredentialError, match="not the name of a credential helper"):
        Helper(suffix)


def test_a_helper_that_is_not_there_is_named_with_who_wants_it(tmp_path: Path) -> None:
    with pytest.raises(
        CredentialError, match=r"docker-credential-x is not on PATH \(named by .*config\.json\)"
    ):
        ask(tmp_path, {"credsStore": "x"})


def test_only_absolute_entries_of_the_path_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "x", GIVE)
    monkeypatch.chdir(tmp_path)
    for path in (".", "", ":", f"../{tmp_path.name}"):
        with pytest.raises(CredentialError, match="not on PATH"):
            Helper("x", {"PATH": path})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'the vault is locked'; exit 3\n", "exit code 3: the vault is locked"),
        ("#!/bin/sh\nexit 1\n", "exit code 1"),
        (f"#!/bin/sh\necho '{SECRET}'\n", "no credential that can be read"),
        ("#!/bin/sh\necho '[]'\n", "no credential that can be read"),
        ("#!/bin/sh\nhead -c 100000 /dev/zero\n", "more than 64 KiB"),
        ("#!/bin/sh\nyes\n", "more than 64 KiB"),
        ("#!/nonexistent/interpreter\n", "cannot be started"),
    ],
)
def test_a_helper_that_fails_says_how(tmp_path: Path, script: str, said: str) -> None:
    program(tmp_path, "x", script)
    with pytest.raises(CredentialError, match=said) as caught:
        get(tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "script",
    [
        '#!/bin/sh\nsleep 60 & echo $! > "$0.pid"\nwait\n',
        '#!/bin/sh\nexec 0<&-\nsleep 60 & echo $! > "$0.pid"\nexit 0\n',
    ],
)
def test_a_helper_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "DEADLINE", 0.5)
    path = program(tmp_path, "x", script)
    started = time.monotonic()
    with pytest.raises(CredentialError, match="no answer within"):
        get(tmp_path)
    assert time.monotonic() - started < 5
    child = int(Path(f"{path}.pid").read_text())
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_credential_is_handed_to_dockers_helper_by_a_pipe(tmp_path: Path) -> None:
    path = program(tmp_path, "x", '#!/bin/sh\ncat > "$0.in"; tr "\\0" " " < /proc/$$/cmdline > "$0.args"\n')
    (tmp_path / "config.json").write_text('{"credsStore": "x"}')
    helper = trio.run(hand_to_docker, CONNECTION, "bob", SECRET, environment(tmp_path))
    assert helper == "docker-credential-x"
    stored = json.loads(Path(f"{path}.in").read_text())
    assert stored == {"ServerURL": "reg.example:5000", "Username": "bob", "Secret": SECRET}
    assert Path(f"{path}.args").read_text().rstrip().endswith("docker-credential-x store")


@pytest.mark.parametrize("config", ["", "{}", '{"auths": {}}', None])
def test_without_a_helper_nothing_is_written_and_the_way_out_is_said(
    tmp_path: Path, config: str | None
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CredentialError, match=r"credsStore.*docker login reg\.example:5000"):
        trio.run(hand_to_docker, CONNECTION, "bob", SECRET, environment(tmp_path))
    assert sorted(tmp_path.iterdir()) == before
    assert config is None or (tmp_path / "config.json").read_text() == config


def test_a_helper_that_does_not_store_says_so_without_the_secret(tmp_path: Path) -> None:
    program(tmp_path, "x", '#!/bin/sh\necho "cannot store: $(cat)"; exit 1\n')
    (tmp_path / "config.json").write_text('{"credHelpers": {"reg.example:5000": "x"}}')
    with pytest.raises(CredentialError, match="exit code 1: cannot store") as caught:
        trio.run(hand_to_docker, CONNECTION, "bob", SECRET, environment(tmp_path))
    assert SECRET not in str(caught.value)
