"""A daemon that is killed in the middle of a deletion leaves a tag that is as it was or gone, once it is mounted again."""

from __future__ import annotations

import http.client
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from regfs.digest import Digest
from regfs.manifest import THROW_AWAY_MARK
from regfs.testing.images import make_image
from tests.support import processes
from tests.support.mounts import Home, Mount, fuse_mounts, mounted
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]
When = Literal["lost", "done"]

STEPS = ("DELETE by tag", "DELETE by digest", "PUT", "DELETE by digest again")
"""What a deletion of a tag sends to Docker's registry: its own way, a made-up digest, the throw-away, its deletion."""


class Brink:
    """A reverse proxy that stops a daemon at its n-th write: before the registry has it, or before its reply is sent.

    ``writes`` are the writes so far; `arm` says where to stop, and `let_go` lets what is held go on, into nothing.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.writes: list[str] = []
        self.slow = 0.0
        """Seconds that each write takes, so that whoever looks meanwhile is seen to look meanwhile."""
        self._stop_at: int | None = None
        self._when: When = "lost"
        self._held = threading.Event()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._server.server_port}"

    def arm(self, step: int, when: When) -> None:
        """Stop at the write number ``step``, counted from the next one."""
        self.writes.clear()
        self._held.clear()
        self._over.clear()
        self._stop_at, self._when = step, when

    def wait_until_held(self) -> None:
        """Return once the write is held. AssertionError if it does not come."""
        assert self._held.wait(20), f"the write did not come: {self.writes}"

    def let_go(self) -> None:
        """What is held goes on, and nothing is held any more."""
        self._stop_at = None
        self._over.set()

    def close(self) -> None:
        """Serve no more."""
        self.let_go()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        brink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                with suppress(OSError):
                    brink._serve(self)

            do_GET = do_HEAD = do_PUT = do_DELETE = serve  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

        return Handler

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        held = request.command not in ("GET", "HEAD") and self._is_the_one(request)
        if held and self._when == "lost":
            self._hold()
            request.close_connection = True
            return
        status, headers, answer = self._pass_on(request, body)
        if held:
            self._hold()
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                request.send_header(name, value)
        length = next((v for n, v in headers if n.lower() == "content-length"), str(len(answer)))
        request.send_header("Content-Length", length)
        request.end_headers()
        request.wfile.write(answer)

    def _is_the_one(self, request: BaseHTTPRequestHandler) -> bool:
        with self._lock:
            self.writes.append(f"{request.command} {request.path}")
            number = len(self.writes) - 1
        if self.slow:
            threading.Event().wait(self.slow)
        return number == self._stop_at

    def _hold(self) -> None:
        self._held.set()
        self._over.wait(60)

    def _pass_on(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            kept = {n: v for n, v in request.headers.items() if n.lower() not in ("connection", "host")}
            connection.request(request.command, request.path, body or None, {**kept, "Host": self.address})
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """One registry for all cases: each has repositories of its own."""
    registry = DockerRegistry(tmp_path_factory.mktemp("killed") / "registry").start()
    try:
        yield registry
    finally:
        registry.remove()


@pytest.fixture
def brink(shared: DockerRegistry) -> Iterator[Brink]:
    proxy = Brink(shared.address)
    try:
        yield proxy
    finally:
        proxy.close()


def three_tags(registry: DockerRegistry, repository: str) -> dict[str, Digest]:
    """A repository with two tags of one image and one of another; its tags."""
    image = make_image(repository)
    registry.lay_image(repository, image, ["v1", "v2"])
    registry.lay_image(repository, make_image(f"{repository} too"), ["v3"])
    return registry.tags(repository)


def journal(home: Home) -> list[Path]:
    """What the journals of all connections hold."""
    return list(home.state.rglob("*.deletion"))


@contextmanager
def killed_at(
    step: int, when: When, brink: Brink, home: Home, repository: str, path: Path
) -> Iterator[Mount]:
    """The dead mount of a daemon that was killed at a write of the deletion of ``repository``'s tag v1."""
    with mounted("--rw", brink.address, home=home, path=path) as mount:
        brink.arm(step, when)
        remover = subprocess.Popen(
            ["rm", f"{repository}/v1/manifest.json"], cwd=path, stderr=subprocess.DEVNULL
        )
        try:
            brink.wait_until_held()
        finally:
            mount.kill()
            assert remover.wait(30) != 0
        brink.let_go()
        with pytest.raises(OSError, match="not connected"):
            path.stat()
        yield mount


def as_it_was_or_gone(found: Mapping[str, Digest], before: Mapping[str, Digest]) -> bool:
    """Whether v1 is as it was or gone, and everything else is as it was."""
    return found == before or found == {name: digest for name, digest in before.items() if name != "v1"}


def test_an_undisturbed_deletion_has_the_steps_that_are_tried_here(
    shared: DockerRegistry, brink: Brink, home: Home
) -> None:
    before = three_tags(shared, "whole/app")
    with mounted("--rw", brink.address, home=home) as mount:
        mount.run("rm -r whole/app/v1", check=True)
    assert [write.partition(" ")[0] for write in brink.writes] == [step.partition(" ")[0] for step in STEPS]
    assert shared.tags("whole/app") == {name: before[name] for name in ("v2", "v3")}
    assert journal(home) == []


@pytest.mark.parametrize("when", ["lost", "done"])
@pytest.mark.parametrize("step", range(len(STEPS)), ids=[step.replace(" ", "-") for step in STEPS])
def test_killed_at_a_step_the_tag_is_as_it_was_or_gone_at_the_next_mount(
    step: int, when: When, shared: DockerRegistry, brink: Brink, home: Home, tmp_path: Path
) -> None:
    repository = f"killed-{step}-{when}/app"
    before = three_tags(shared, repository)
    original = shared.get(f"{repository}/manifests/v2")
    path = tmp_path / "place"
    with killed_at(step, when, brink, home, repository, path):
        assert path in fuse_mounts(), "the dead mount is there for the next `regfs mount` to clean up"
        brink.slow = 0.2
        with mounted("--rw", brink.address, home=home, path=path) as mount:
            first = mount.run(["cat", f"{repository}/v1/manifest.json"])
            assert first.stdout.encode() == original if first.returncode == 0 else first.stdout == ""
            processes.wait_until(lambda: journal(home) == [], "the journal is settled")
            assert as_it_was_or_gone(shared.tags(repository), before), shared.tags(repository)
            assert mount.list(repository) == sorted(shared.tags(repository))
            for tag, digest in before.items():
                if tag != "v1" or first.returncode == 0:
                    assert mount.read(f"{repository}/{tag}/digest").decode().strip() == str(digest)
            assert path.is_dir()
    assert path not in fuse_mounts()


def test_a_read_only_mount_after_a_kill_says_so_and_shows_no_throw_away(
    shared: DockerRegistry, brink: Brink, home: Home, tmp_path: Path
) -> None:
    before = three_tags(shared, "halfway/app")
    path = tmp_path / "place"
    with killed_at(STEPS.index("PUT"), "done", brink, home, "halfway/app", path):
        assert shared.tags("halfway/app")["v1"] not in before.values()
        brink.writes.clear()
        with mounted(brink.address, home=home, path=path) as mount:
            assert "was broken off" in mount.stderr
            assert "--rw" in mount.stderr
            done = mount.run("LC_ALL=C cat halfway/app/v1/manifest.json")
            assert THROW_AWAY_MARK not in done.stdout, (
                "our own throw-away, shown as if it were the tag's content"
            )
            assert done.returncode != 0
            assert "resource busy" in done.stderr
            assert "broken off" in mount.errors().splitlines()[-1]
            assert mount.list("halfway/app") == ["v1", "v2", "v3"]
            assert mount.read("halfway/app/v2/digest").decode().strip() == str(before["v2"])
            assert brink.writes == []
            assert len(journal(home)) == 1
        with mounted("--rw", brink.address, home=home, path=path):
            processes.wait_until(lambda: journal(home) == [], "the journal is settled")
            assert as_it_was_or_gone(shared.tags("halfway/app"), before)
