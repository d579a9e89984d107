"""OAuth as its user meets it: a real command line in a terminal, a real keyring, Docker's own registry, real mounts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regfs.testing.images import make_image
from tests.cli.keyrings import secret_service
from tests.support import processes
from tests.support.mounts import Home, Mount, mounted, regfs_command
from tests.support.oauth_server import Client, LivePassword, OAuthServer
from tests.support.registry import DockerRegistry
from tests.support.tokens import TokenServer

SECRET = "the-client-secret-of-regfs"
CODE = re.compile(r"type this code: ([0-9A-F]{4}-[0-9A-F]{4})")


@pytest.fixture
def keyring_home(home: Home) -> Iterator[Home]:
    with secret_service(home):
        yield home


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer() as running:
        yield running


@pytest.fixture
def registry(
    server: OAuthServer,
    docker_registry: Callable[..., DockerRegistry],
    token_server: Callable[..., TokenServer],
) -> DockerRegistry:
    """A registry whose token endpoint takes an access token of the server as the password of ``oauth2``."""
    running = docker_registry(token=token_server({"pusher": "pushes", "oauth2": LivePassword.of(server)}))
    running.push("team/app", "v1")
    return running


class Session:
    """A command in a terminal of its own, as wide as terminals are."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        self.process = subprocess.Popen(
            [*regfs_command(), *arguments], env=home.env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.shown = ""

    def wait_for(self, pattern: re.Pattern[str]) -> str:
        """What the pattern's group holds, once it is shown."""
        deadline = time.monotonic() + 30
        while (match := pattern.search(self.shown)) is None:
            assert time.monotonic() < deadline, self.shown
            assert self._read(0.2) or self.process.poll() is None, self.shown
        return match[1]

    def finish(self) -> int:
        while self._read(0.2) or self.process.poll() is None:
            pass
        os.close(self._master)
        return self.process.wait(timeout=30)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def log_in(home: Home, server: OAuthServer, address: str, *options: str) -> Session:
    """Sign in by the device flow in a terminal, the person agreeing at once."""
    session = Session(
        home, "login", "--auth", "oauth", "--client-id", "regfs-app", "--issuer", server.issuer, *options, address
    )  # fmt: skip
    server.decide(session.wait_for(CODE))
    assert session.finish() == 0, session.shown
    return session


def reconnect(home: Home, server: OAuthServer, name: str) -> Session:
    session = Session(home, "reconnect", name)
    server.decide(session.wait_for(CODE))
    assert session.finish() == 0, session.shown
    return session


def connections(home: Home) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((home.config / "connections.json").read_text())["connections"]
    return found


def refreshes(server: OAuthServer) -> list[str]:
    return [result for grant, result in server.asked if grant == "refresh_token"]


# ── signing in ──


def test_the_device_flow_from_a_terminal_to_a_mount(
    server: OAuthServer, registry: DockerRegistry, keyring_home: Home
) -> None:
    session = log_in(
        keyring_home, server, registry.address, "-u", "oauth2", "--scope", "api", "--scope", "read"
    )
    assert f"{server.issuer}/device?user_code=" in session.shown
    assert len(re.findall("[▀▄█]", session.shown)) > 100, "there is no QR code"
    (connection,) = connections(keyring_home)
    assert connection["auth"] == "oauth"
    kept = secret_of_connection(keyring_home, connection)
    assert "OAuth sign-in" in kept
    assert server.families[0].refresh in kept
    assert server.families[0].scope == "api read"
    with mounted(registry.address, home=keyring_home) as mount:
        assert json.loads(mount.read("team/app/v1/manifest.json"))["schemaVersion"] == 2
        (status,) = mount.status()["registries"]
        assert status["auth"] == "oauth"
        assert "keyring" in status["signed_in"]


def secret_of_connection(home: Home, connection: dict[str, object]) -> str:
    """What the keyring keeps for a connection."""
    script = (
        "import json, sys, trio\nfrom regfs.connections import ConnectionStore\n"
        "from regfs.auth.sources.keyring import KeyringSource\n"
        "(c,) = [c for c in ConnectionStore().load() if c.name == sys.argv[1]]\n"
        "k = trio.run(KeyringSource().get, c)\nprint(k.kind.value, k.secret)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(connection["name"])], env=home.env, capture_output=True, text=True,
        check=True, timeout=30,
    )  # fmt: skip
    return done.stdout


def test_the_code_flow_opens_the_browser_that_the_person_names(
    server: OAuthServer, registry: DockerRegistry, keyring_home: Home, tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1]).read()\n"
    )
    browser.chmod(0o755)
    keyring_home.variables["BROWSER"] = str(browser)
    session = Session(
        keyring_home, "login", "--auth", "oauth", "--flow", "browser", "--client-id", "regfs-app",
        "--issuer", server.issuer, "-u", "oauth2", registry.address,
    )  # fmt: skip
    assert session.finish() == 0, session.shown
    assert server.asked == [("authorization_code", "ok")]
    assert "signed in to" in session.shown


def test_a_client_signs_in_with_a_secret_that_is_piped_in(
    registry: DockerRegistry, server: OAuthServer, keyring_home: Home
) -> None:
    server.clients["robot"] = Client(SECRET, frozenset({"client_credentials"}))
    done = keyring_home.regfs(
        "login", "--auth", "oauth", "--flow", "client", "--client-id", "robot", "--client-secret-stdin",
        "--token-endpoint", server.token_endpoint, "-u", "oauth2", registry.address, stdin=f"{SECRET}\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SECRET not in (keyring_home.config / "connections.json").read_text()
    server.revoke()
    with mounted(registry.address, home=keyring_home) as mount:
        assert mount.list("team") == ["app"]
    assert server.asked == [("client_credentials", "ok")] * 2


def test_a_sign_in_that_is_refused_stores_nothing(
    server: OAuthServer, registry: DockerRegistry, keyring_home: Home
) -> None:
    session = Session(
        keyring_home, "login", "--auth", "oauth", "--client-id", "regfs-app", "--issuer", server.issuer,
        registry.address,
    )  # fmt: skip
    server.decide(session.wait_for(CODE), "access_denied")
    assert session.finish() == 1
    assert "refused" in session.shown
    assert not (keyring_home.config / "connections.json").exists()


def test_oauths_options_go_with_no_other_method(home: Home) -> None:
    done = home.regfs("login", "--client-id", "x", "--auth", "challenge", "localhost:1")
    assert done.returncode == 2
    assert "--auth oauth" in done.stderr


# ── a mount that goes on ──


def test_fifty_readers_at_the_end_of_a_token_wait_for_one_renewal(
    server: OAuthServer, registry: DockerRegistry, keyring_home: Home
) -> None:
    names = [f"v{number}" for number in range(50)]
    registry.push("team/many", names, make_image("many"))
    server.policy.lifetime = 3.0
    log_in(keyring_home, server, registry.address, "-u", "oauth2")
    with mounted(registry.address, home=keyring_home) as mount:
        mount.read("team/app/v1/manifest.json")
        before, server.policy.lifetime = len(refreshes(server)), 7200.0
        tokens = [token for family in server.families for token in family.access]
        processes.wait_until(lambda: not any(map(server.is_good, tokens)), "the access token ends")
        readers = [
            subprocess.Popen(["cat", mount.path / f"team/many/{name}/manifest.json"], stdout=subprocess.PIPE)
            for name in names
        ]
        contents = [reader.communicate(timeout=60)[0] for reader in readers]
        assert [reader.returncode for reader in readers] == [0] * 50
        assert all(contents)
        assert refreshes(server)[before:] == ["ok"]
    (connection,) = connections(keyring_home)
    assert server.families[0].refresh in secret_of_connection(keyring_home, connection)


def test_a_revoked_sign_in_names_reconnect_which_brings_the_mount_back_and_concerns_no_neighbour(
    server: OAuthServer,
    registry: DockerRegistry,
    docker_registry: Callable[..., DockerRegistry],
    keyring_home: Home,
) -> None:
    neighbour = docker_registry(htpasswd={"me": "neighbours-password"})
    neighbour.push("other/app", ["v1", "v2"])
    for number in range(20):
        registry.push(f"late/app{number}", "v1")
    keyring_home.regfs(
        "login", "-u", "me", "--password-stdin", "--name", "beside", neighbour.address,
        stdin="neighbours-password", check=True,
    )  # fmt: skip
    log_in(keyring_home, server, registry.address, "-u", "oauth2", "--name", "work")
    outputs: list[str] = []
    with mounted("-vv", home=keyring_home, expected_in_log=[".*"]) as mount:
        mount.read("work/team/app/v1/manifest.json")
        mount.read("beside/other/app/v1/manifest.json")
        pid, asked = mount.pid, len(refreshes(server))
        server.revoke()
        for number in range(20):
            done = mount.run(["cat", f"work/late/app{number}/v1/manifest.json"])
            assert done.returncode != 0
            outputs.append(done.stderr)
        assert refreshes(server)[asked:] == ["invalid_grant"]
        errors = mount.errors()
        assert "`regfs reconnect work`" in errors
        assert "beside" not in errors
        mount.read("beside/other/app/v2/manifest.json")

        outputs.append(reconnect(keyring_home, server, "work").shown)
        processes.wait_until(lambda: _reads(mount, "work/late/app0/v1/manifest.json"), "the mount goes on")
        assert (mount.pid, refreshes(server)[asked:]) == (pid, ["invalid_grant"])
        mount.read("beside/other/app/v1/manifest.json")
        outputs += [mount.errors(), json.dumps(mount.status()), mount.run("cat .regfs/*").stdout]
        outputs.append((Path("/proc") / str(pid) / "cmdline").read_text())
        outputs.append((Path("/proc") / str(pid) / "environ").read_text())
    outputs.append(mount.log())
    outputs += [
        path.read_text(errors="replace")
        for path in keyring_home.path.rglob("*")
        if path.is_file() and "keyrings" not in path.parts
    ]
    assert len(server.given) >= 6
    assert [secret for secret in server.given for output in outputs if secret in output] == []


def _reads(mount: Mount, path: str) -> bool:
    return mount.run(["cat", path]).returncode == 0


def test_reconnect_asks_for_the_password_where_that_is_how_one_signs_in(
    docker_registry: Callable[..., DockerRegistry], keyring_home: Home
) -> None:
    registry = docker_registry(htpasswd={"me": "the-password-it-has"})
    registry.push("team/app", "v1")
    keyring_home.regfs(
        "login", "-u", "me", "--password-stdin", "--name", "work", registry.address,
        stdin="the-password-it-has", check=True,
    )  # fmt: skip
    (before,) = connections(keyring_home)
    wrong = keyring_home.regfs("reconnect", "--password-stdin", "work", stdin="another")
    assert (wrong.returncode, "Nothing was changed" in wrong.stderr) == (1, True)
    keyring_home.regfs("reconnect", "--password-stdin", "work", stdin="the-password-it-has", check=True)
    (after,) = connections(keyring_home)
    assert before.pop("generation") != after.pop("generation")
    assert before == after
    with mounted(registry.address, home=keyring_home) as mount:
        assert mount.list("team") == ["app"]


def test_reconnect_to_what_is_not_there_or_needs_none_says_so(home: Home) -> None:
    done = home.regfs("reconnect", "nobody")
    assert (done.returncode, "there is no connection" in done.stderr) == (1, True)
    home.write_config('[registries.open]\naddress = "localhost:1"\nauth = "anonymous"\n')
    done = home.regfs("reconnect", "open")
    assert (done.returncode, "as nobody" in done.stderr) == (1, True)


# ── registries that take the token as it is, and third parties ──


def test_a_registry_that_takes_the_access_token_as_a_bearer_token(
    server: OAuthServer,
    docker_registry: Callable[..., DockerRegistry],
    token_server: Callable[..., TokenServer],
    keyring_home: Home,
) -> None:
    tokens = token_server({"pusher": "pushes"})
    registry = docker_registry(token=tokens)
    registry.push("team/app", "v1")
    access = [
        {"type": "repository", "name": "team/app", "actions": ["pull"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]
    server.policy.access_token = lambda: tokens.sign("somebody", access)
    before = len(tokens.requests)
    log_in(keyring_home, server, registry.address)
    with mounted(registry.address, home=keyring_home) as mount:
        assert mount.list("team/app") == ["v1"]
        assert json.loads(mount.read("team/app/v1/manifest.json"))["schemaVersion"] == 2
    assert [request for request in tokens.requests[before:] if request.kind != "anonymous"] == []
