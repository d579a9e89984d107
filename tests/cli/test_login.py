"""Signing in and out, with real registries and a real keyring."""

from __future__ import annotations

import http.server
import json
import os
import pty
import select
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.testing.images import make_image
from tests.cli.keyrings import secret_of, secret_service
from tests.support import processes
from tests.support.mounts import Home, regfs_command
from tests.support.registry import DockerRegistry
from tests.support.tls import CertificateAuthority
from tests.support.tokens import TokenServer

PASSWORD = "correct-horse-battery"
Registries = Callable[..., DockerRegistry]


@pytest.fixture
def keyring_home(home: Home) -> Iterator[Home]:
    with secret_service(home):
        yield home


def stored(home: Home) -> list[dict[str, object]]:
    """The connections that `regfs login` keeps."""
    place = home.config / "connections.json"
    if not place.exists():
        return []
    connections: list[dict[str, object]] = json.loads(place.read_text())["connections"]
    return connections


def login(home: Home, address: str, password: str, *options: str) -> subprocess.CompletedProcess[str]:
    return home.regfs(
        "login", "--username", "me", "--password-stdin", *options, address, stdin=f"{password}\n"
    )


def test_a_good_password_is_kept_in_the_keyring_and_nowhere_else(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    done = login(keyring_home, registry.address, PASSWORD)
    said = f"regfs: {registry.address} is taken for Docker V2 / OCI registry (--provider generic): "
    assert (done.returncode, done.stderr.startswith(said), done.stderr.count("\n")) == (0, True, 1)
    assert done.stdout == f"signed in to {registry.address} as 'me'; the credential is in keyring\n"
    assert PASSWORD in (secret_of(keyring_home, registry.address) or "")
    (connection,) = stored(keyring_home)
    assert connection["address"] == registry.address
    assert connection["username"] == "me"
    files = [path for path in keyring_home.path.rglob("*") if path.is_file()]
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def test_a_wrong_password_is_said_and_nothing_is_stored(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    done = login(keyring_home, registry.address, "a-wrong-password")
    assert done.returncode == 1
    assert f"{registry.address} does not take this user name and password ('me')" in done.stderr
    assert "Nothing was stored." in done.stderr
    assert stored(keyring_home) == []
    assert secret_of(keyring_home, registry.address) is None


def test_a_new_login_replaces_the_old_one(docker_registry: Registries, keyring_home: Home) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    assert login(keyring_home, registry.address, PASSWORD, "--name", "work").returncode == 0
    first = stored(keyring_home)
    assert login(keyring_home, f"http://{registry.address}/", PASSWORD).returncode == 0
    second = stored(keyring_home)
    assert [connection["name"] for connection in second] == ["work"]
    assert first[0]["generation"] != second[0]["generation"]


def test_a_failed_login_leaves_the_earlier_one(docker_registry: Registries, keyring_home: Home) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    login(keyring_home, registry.address, PASSWORD)
    before = stored(keyring_home)
    assert login(keyring_home, registry.address, "a-wrong-password").returncode == 1
    assert stored(keyring_home) == before
    assert PASSWORD in (secret_of(keyring_home, registry.address) or "")


def test_signing_in_as_nobody_forgets_the_password(docker_registry: Registries, keyring_home: Home) -> None:
    registry = docker_registry()
    login(keyring_home, registry.address, PASSWORD)
    assert keyring_home.regfs("login", "--anonymous", registry.address).returncode == 0
    assert secret_of(keyring_home, registry.address) is None
    assert "username" not in stored(keyring_home)[0]


def test_a_registry_that_answers_everybody_leaves_the_password_unverified_and_says_so(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry()
    done = login(keyring_home, registry.address, PASSWORD)
    assert done.returncode == 0
    assert "could not be verified" in done.stderr


def test_logout_erases_the_credential_and_forgets_the_connection(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    login(keyring_home, registry.address, PASSWORD)
    done = keyring_home.regfs("logout", registry.address, check=True)
    assert "its credential is erased and it is forgotten" in done.stdout
    assert stored(keyring_home) == []
    assert secret_of(keyring_home, registry.address) is None
    again = keyring_home.regfs("logout", registry.address)
    assert again.returncode == 1
    assert "not signed in" in again.stderr


def test_the_credential_serves_every_command(docker_registry: Registries, keyring_home: Home) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    registry.push("team/app", "v1")
    login(keyring_home, registry.address, PASSWORD)
    assert keyring_home.regfs("ls", f"{registry.address}/team/app", check=True).stdout == "v1\n"
    (row,) = json.loads(keyring_home.regfs("registries", "--json", check=True).stdout)
    assert (row["address"], row["signed_in"], row["state"]) == (registry.address, "me (keyring)", "ok")


# ── without a keyring ──


def test_without_a_keyring_nothing_is_stored_and_the_other_sources_are_named(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    done = login(home, registry.address, PASSWORD)
    assert done.returncode == 1
    for words in ("no usable keyring", "docker login", "-o credentials=FILE", "systemd"):
        assert words in done.stderr
    assert stored(home) == []
    assert PASSWORD not in done.stderr


def test_a_keyring_that_keeps_plain_text_is_refused_by_its_name(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    module = home.path / "plain_keyring.py"
    module.write_text(
        "from keyring.backend import KeyringBackend\n"
        "class Plain(KeyringBackend):\n"
        "    priority = 1\n"
        "    def get_password(self, service, username): return None\n"
        "    def set_password(self, service, username, password):\n"
        f"        open({str(home.path / 'leak')!r}, 'w').write(password)\n"
    )
    home.variables |= {"PYTHONPATH": str(home.path), "PYTHON_KEYRING_BACKEND": "plain_keyring.Plain"}
    done = login(home, registry.address, PASSWORD)
    assert done.returncode == 1
    assert "plain_keyring.Plain" in done.stderr
    assert not (home.path / "leak").exists()
    assert stored(home) == []


def test_nobody_needs_no_keyring(docker_registry: Registries, home: Home) -> None:
    registry = docker_registry()
    assert home.regfs("login", "--anonymous", registry.address).returncode == 0
    assert [connection["auth"] for connection in stored(home)] == ["anonymous"]
    done = home.regfs("logout", registry.address)
    assert done.returncode == 0
    assert stored(home) == []


# ── what was wrong, precisely ──


def test_a_wrong_password_at_a_token_server_is_said(
    docker_registry: Registries, token_server: Callable[..., TokenServer], home: Home
) -> None:
    registry = docker_registry(token=token_server({"me": PASSWORD}))
    done = login(home, registry.address, "a-wrong-password")
    assert "does not take this user name and password ('me')" in done.stderr
    assert "\nregfs: the sign-in is good" in login(home, registry.address, PASSWORD).stderr


def test_a_token_registry_that_serves_nobody_gets_a_token_for_nobody(
    docker_registry: Registries, token_server: Callable[..., TokenServer], home: Home
) -> None:
    server = token_server({"me": PASSWORD})
    server.policy.anonymous = True
    registry = docker_registry(token=server)
    assert home.regfs("login", "--anonymous", registry.address).returncode == 0
    registry.lay_image("team/app", make_image("app"), ["v1"])
    assert home.regfs("cat", f"{registry.address}/team/app/v1/digest", check=True).stdout.startswith(
        "sha256:"
    )


def test_nobody_at_a_registry_that_wants_somebody_is_told_so(docker_registry: Registries, home: Home) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    done = home.regfs("login", "--anonymous", registry.address)
    assert done.returncode == 1
    assert "lets nobody in without a user name and a password" in done.stderr


def test_a_certificate_that_nobody_vouches_for_is_named_and_its_ca_helps(
    docker_registry: Registries, authority: CertificateAuthority, home: Home
) -> None:
    registry = docker_registry(tls=authority.issue())
    address = f"localhost:{registry.port}"
    done = home.regfs("login", "--anonymous", address)
    assert done.returncode == 1
    assert "regfs test CA" in done.stderr
    assert f"regfs login --ca FILE {address}" in done.stderr
    assert home.regfs("login", "--anonymous", "--ca", "../ca/ca.crt", address).returncode == 0
    (connection,) = stored(home)
    assert Path(str(connection["ca"])).resolve() == authority.certificate
    assert home.regfs("ls", address, check=True).stdout == ""


def test_a_certificate_for_another_name_is_said(
    docker_registry: Registries, authority: CertificateAuthority, home: Home
) -> None:
    registry = docker_registry(tls=authority.issue("registry.example.com"))
    done = home.regfs("login", "--anonymous", "--ca", authority.certificate, f"localhost:{registry.port}")
    assert done.returncode == 1
    assert "registry.example.com" in done.stderr


def test_a_ca_file_that_is_none_is_refused_before_anything_is_asked(home: Home) -> None:
    (home.path / "not-a-ca.pem").write_text("hello")
    done = home.regfs("login", "--anonymous", "--ca", "not-a-ca.pem", "localhost:1")
    assert "holds no certificate" in done.stderr
    assert "No such file" in home.regfs("login", "--anonymous", "--ca", "absent.pem", "localhost:1").stderr


def test_a_host_that_does_not_exist_is_said(home: Home) -> None:
    done = home.regfs("login", "--anonymous", "no-such-host.invalid")
    assert done.returncode == 1
    assert "there is no host 'no-such-host.invalid'" in done.stderr


def test_a_port_where_nothing_listens_is_said(home: Home) -> None:
    done = home.regfs("login", "--anonymous", f"127.0.0.1:{processes.free_port()}")
    assert done.returncode == 1
    assert "refused" in done.stderr


def test_what_is_no_registry_is_said(home: Home) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f"127.0.0.1:{server.server_address[1]}"
        try:
            done = home.regfs("login", "--anonymous", address)
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 1
    assert f"{address} answers, but not as a container registry does" in done.stderr


def test_a_password_in_the_address_is_refused_and_not_repeated(home: Home) -> None:
    done = home.regfs("login", "--anonymous", f"me:{PASSWORD}@localhost:5000")
    assert done.returncode == 1
    assert "an address holds no user name or password" in done.stderr
    assert PASSWORD not in done.stderr


def test_a_name_that_another_registry_bears_is_refused(docker_registry: Registries, home: Home) -> None:
    first, second = docker_registry(), docker_registry()
    home.regfs("login", "--anonymous", "--name", "mine", first.address, check=True)
    done = home.regfs("login", "--anonymous", "--name", "mine", second.address)
    assert done.returncode == 1
    assert first.address in done.stderr
    assert [connection["address"] for connection in stored(home)] == [first.address]


@pytest.mark.parametrize(
    "options",
    [
        ["--anonymous", "--username", "me"],
        ["--anonymous", "--password-stdin"],
        ["--username", ""],
        ["--name", "a/b"],
    ],
)
def test_options_that_contradict_each_other_are_a_usage_error(options: list[str], home: Home) -> None:
    assert home.regfs("login", *options, "localhost:1").returncode == 2


def test_an_empty_password_on_standard_input_is_refused(home: Home) -> None:
    done = home.regfs("login", "-u", "me", "--password-stdin", "localhost:1", stdin="\n")
    assert done.returncode == 1
    assert "standard input was empty" in done.stderr


# ── on a terminal ──


class Terminal:
    """A command on a pseudo-terminal: what it shows, and whether typing is echoed."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [*regfs_command(), *arguments],
            env=home.env,
            cwd=home.path,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: os.close(
                os.open(os.ttyname(0), os.O_RDWR)
            ),  # makes it the controlling terminal
        )
        os.close(slave)
        self.shown = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def echoes(self) -> bool:
        flags: int = termios.tcgetattr(self._master)[3]
        return bool(flags & termios.ECHO)

    def wait_for(self, words: str) -> None:
        """Read until ``words`` are shown."""
        end = time.monotonic() + 20
        while words not in self.shown:
            assert time.monotonic() < end, f"{words!r} does not come: {self.shown!r}"
            self._read()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def finish(self) -> int:
        """The exit code, with all output read."""
        while self._process.poll() is None or self._ready(0.1):
            if not self._read():
                break
        os.close(self._master)
        return self._process.wait(timeout=20)

    def _ready(self, seconds: float) -> bool:
        return bool(select.select([self._master], [], [], seconds)[0])

    def _read(self) -> bool:
        if not self._ready(0.1):
            return True
        try:
            data = os.read(self._master, 4096)
        except OSError:
            return False
        self.shown += data.decode()
        return bool(data)


def test_the_password_is_asked_for_on_the_terminal_and_never_echoed(
    docker_registry: Registries, keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    terminal = Terminal(keyring_home, "login", registry.address)
    terminal.wait_for("User name: ")
    assert terminal.echoes
    terminal.type("me\n")
    terminal.wait_for("Password or token: ")
    processes.wait_until(lambda: not terminal.echoes, "the echo is off")
    terminal.type(f"{PASSWORD}\n")
    assert terminal.finish() == 0
    assert "signed in to" in terminal.shown
    assert PASSWORD not in terminal.shown


def test_an_empty_user_name_on_the_terminal_signs_in_as_nobody(
    docker_registry: Registries, home: Home
) -> None:
    terminal = Terminal(home, "login", docker_registry().address)
    terminal.wait_for("User name: ")
    terminal.type("\n")
    assert terminal.finish() == 0
    assert "as nobody" in terminal.shown


def test_ctrl_c_at_the_prompt_stores_nothing(docker_registry: Registries, home: Home) -> None:
    terminal = Terminal(home, "login", "-u", "me", docker_registry().address)
    terminal.wait_for("Password or token: ")
    processes.wait_until(lambda: not terminal.echoes, "the echo is off")
    terminal.type("\x03")
    assert terminal.finish() == -2
    assert "Traceback" not in terminal.shown
    assert stored(home) == []


def test_without_a_terminal_there_is_no_prompt(home: Home) -> None:
    done = home.regfs("login", "localhost:1")
    assert done.returncode == 2
    assert "--username" in done.stderr
    assert "--password-stdin" in home.regfs("login", "-u", "me", "localhost:1").stderr


# ── a locked keyring ──


def test_a_locked_keyring_that_would_prompt_ends_in_time_with_a_message(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": PASSWORD})
    with secret_service(home, unlocked=False):
        begin = time.monotonic()
        done = login(home, registry.address, PASSWORD)
        assert time.monotonic() - begin < 15
    assert done.returncode == 1
    assert "keyring" in done.stderr
    assert stored(home) == []
