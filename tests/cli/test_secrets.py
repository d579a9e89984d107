"""A password of known text is found nowhere that others can look."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.keyrings import secret_service
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry
from tests.support.tokens import TokenServer

Registries = Callable[..., DockerRegistry]
PASSWORD = "correct-horse-battery-staple"
SECRETS = (PASSWORD.encode(), base64.b64encode(f"me:{PASSWORD}".encode()))
"""The password as it is, and as Basic sends it."""


def holds_secret(data: bytes) -> bool:
    return any(secret in data for secret in SECRETS)


class Watcher:
    """Looks, again and again while it runs, at the command line and environment of every process."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.looks = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            self.looks += 1
            for process in Path("/proc").glob("[0-9]*"):
                self._look(process)

    def _look(self, process: Path) -> None:
        for name in ("cmdline", "environ"):
            try:
                data = (process / name).read_bytes()
            except OSError:
                continue
            if holds_secret(data):
                self.found.add(f"{process.name}/{name}: {data[:200]!r}")


@pytest.fixture
def registry(docker_registry: Registries, token_server: Callable[..., TokenServer]) -> DockerRegistry:
    registry = docker_registry(token=token_server({"me": PASSWORD}))
    registry.push("team/app", ["v1", "v2"])
    return registry


@pytest.fixture
def keyring_home(home: Home) -> Iterator[Home]:
    with secret_service(home):
        yield home


def test_a_password_is_in_no_process_no_file_and_no_output(
    registry: DockerRegistry, keyring_home: Home
) -> None:
    home, outputs = keyring_home, list[str]()

    def run(*arguments: str | Path, stdin: str = "") -> None:
        done = home.regfs(*arguments, stdin=stdin)
        outputs.extend((done.stdout, done.stderr))

    tag = f"{registry.address}/team/app/v1"
    with Watcher() as watcher:
        run("-v", "login", "-u", "me", "--password-stdin", registry.address, stdin=f"{PASSWORD}\n")
        with mounted("--rw", "-vv", registry.address, home=home) as mount:
            mount.list("team/app")
            mount.run("cat team/app/v1/manifest.json team/app/absent/manifest.json; rm -r team/app/v2")
            own = [mount.read(f".regfs/{name}") for name in mount.list(".regfs")]
            run("status", "--json", mount.path)
            run("status")
            run("ref", mount.path / "team/app/v1")
        for arguments in (
            ["registries"],
            ["registries", "--json"],
            ["config", "--json"],
            ["plugins", "--json"],
        ):
            run("-v", *arguments)
        for arguments in (
            ["ls", "--json", tag],
            ["stat", "--json", tag],
            ["cat", f"{tag}/manifest.json"],
            ["rm", f"{registry.address}/team/app:v1"],
        ):
            run("-v", *arguments)
        log = mount.log()
    assert watcher.looks > 10
    assert watcher.found == set()
    assert not holds_secret(("".join(outputs) + log).encode())
    assert any("signed in to" in output for output in outputs)
    assert any("deleted" in output for output in outputs)
    assert not [content for content in own if holds_secret(content)]
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert not [path for path in files if holds_secret(path.read_bytes())]


def test_a_wrong_password_is_in_no_message(registry: DockerRegistry, home: Home) -> None:
    wrong = "not-the-right-password"
    done = home.regfs("-v", "login", "-u", "me", "--password-stdin", registry.address, stdin=f"{wrong}\n")
    assert done.returncode == 1
    assert wrong not in done.stdout + done.stderr


def test_the_watcher_sees_a_password_on_a_command_line() -> None:
    with Watcher() as watcher:
        subprocess.run(["sh", "-c", "sleep 0.3", PASSWORD], check=True)
    assert any("cmdline" in found for found in watcher.found)


def test_a_plugin_that_fails_with_a_secret_in_its_words_is_blotted_out() -> None:
    script = (
        "import sys\nfrom regfs.cli import edge\n"
        f"edge.complain(ValueError('Authorization: Basic {PASSWORD}'))\n"
        f"edge.complain(ValueError('https://me:{PASSWORD}@host/v2/?token={PASSWORD}'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "unexpected failure" in done.stderr
    assert PASSWORD not in done.stderr
