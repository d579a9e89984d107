"""A third party's wheel, with a registry that speaks no V2 and a sign-in of its own, works through a real mount."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from regfs.testing.images import Image, make_image
from tests.support import mounts
from tests.support.mounts import Home, mounted

ROOT = Path(__file__).parent.parent
KEY = "a-key-that-only-the-shelf-knows"

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "regfs-shelf"
version = "1.2"
dependencies = ["regfs"]

[project.entry-points."regfs.providers"]
shelf = "regfs_shelf:Shelf"

[project.entry-points."regfs.auth"]
shelf-key = "regfs_shelf:ShelfKey"

[tool.setuptools]
py-modules = ["regfs_shelf"]
"""

MODULE = '''
"""A shelf: images behind a small JSON API that has nothing of V2."""

from contextlib import asynccontextmanager

import httpx

from regfs.errors import ConnectionFailed, Moved, NotFound, NotSignedIn
from regfs.digest import Digest
from regfs.ports import (
    Answer, Claim, Credential, DeletesTags, Deletion, Field, ListsRepositories, RawManifest, TagPage,
)


class KeyFlow(httpx.Auth):
    def __init__(self, connection, keychain):
        self._connection, self._keychain = connection, keychain

    async def async_auth_flow(self, request):
        credential = await self._keychain.get(self._connection)
        if credential is not None:
            request.headers["X-Shelf-Key"] = credential.secret
        yield request


class ShelfKey:
    name = "shelf-key"
    title = "Key of a shelf"
    fields = (Field("key", "Key", secret=True),)

    def flow(self, connection, keychain):
        return KeyFlow(connection, keychain)

    def credential(self, answers):
        return Credential("key", answers["key"])

    def for_docker(self, credential):
        return None


class Shelf:
    name = "shelf"
    title = "Shelf"
    default_auth = "shelf-key"
    many = True
    fields = ()

    def claim(self, address):
        host, _, rest = address.removeprefix("shelf:").partition("/")
        return Claim(f"shelf:{host}", rest, 100) if address.startswith("shelf:") else None

    async def registries(self, connection, tools):
        return {"": ShelfSource(connection.address, tools)}


class ShelfSource:
    def __init__(self, address, tools):
        self.name = address
        self._http = httpx.AsyncClient(base_url="http://" + address.removeprefix("shelf:"), auth=tools.auth)

    async def check(self):
        await self._ask("GET", "/shelf")

    async def tags(self, repository):
        reply = await self._ask("GET", f"/shelf/{repository}")
        yield TagPage(list(reply.json()))

    async def manifest(self, repository, reference):
        reference = str(reference)
        if not reference.startswith("sha256:"):
            reference = (await self._ask("GET", f"/shelf/{repository}")).json().get(reference, "none")
        reply = await self._ask("GET", f"/content/{repository}/{reference}")
        return RawManifest(reply.content, reply.headers["Content-Type"])

    @asynccontextmanager
    async def blob(self, repository, descriptor, start=0, end=None):
        reply = await self._ask("GET", f"/content/{repository}/{descriptor.digest}")

        async def parts():
            yield reply.content[start:end]

        yield parts()

    def capability(self, kind, repository=None):
        return self if kind in (ListsRepositories, DeletesTags) else None

    async def repositories(self):
        yield (await self._ask("GET", "/shelf")).json()

    def can_delete(self):
        return Answer.YES

    async def delete_tag(self, repository, tag, seen):
        now = (await self._ask("GET", f"/shelf/{repository}")).json().get(tag)
        if seen is not None and now is not None and Digest.parse(now) != seen:
            raise Moved(f"{repository}:{tag} moved", registry=self.name)
        await self._ask("DELETE", f"/shelf/{repository}:{tag}")
        return Deletion("the shelf's own way")

    async def aclose(self):
        await self._http.aclose()

    async def _ask(self, method, path):
        try:
            reply = await self._http.request(method, path)
        except httpx.TransportError as error:
            raise ConnectionFailed(f"the shelf does not answer: {error}", registry=self.name) from error
        if reply.status_code == 401:
            raise NotSignedIn("the shelf wants another key", registry=self.name)
        if reply.status_code == 404:
            raise NotFound(f"the shelf has no {path}", registry=self.name)
        return reply
'''


class ShelfServer(ThreadingHTTPServer):
    """The registry of that third party: ``tags`` by repository, content by digest, a key that it asks for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tags: dict[str, dict[str, Image]] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"shelf:127.0.0.1:{self.server_address[1]}"

    def content(self, digest: str) -> tuple[str, bytes] | None:
        contents = (
            content
            for tags in self.tags.values()
            for image in tags.values()
            for content in (image.manifest, *image.blobs)
        )
        return next(((c.media_type, c.raw) for c in contents if str(c.digest) == digest), None)

    def answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        kind, _, rest = path.strip("/").partition("/")
        if kind == "content":
            found = self.content(rest.rpartition("/")[2])
            return (404, "", b"") if found is None else (200, *found)
        if not rest:
            return 200, "application/json", json.dumps(list(self.tags)).encode()
        repository, _, tag = rest.partition(":")
        if repository not in self.tags or (tag and tag not in self.tags[repository]):
            return 404, "", b""
        if method == "DELETE":
            del self.tags[repository][tag]
        tags = {name: str(image.digest) for name, image in self.tags[repository].items()}
        return 200, "application/json", json.dumps(tags).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ShelfServer

    def _reply(self) -> None:
        path = unquote(self.path)
        self.server.requests.append(f"{self.command} {path}")
        status, kind, body = (401, "", b"")
        if self.headers.get("X-Shelf-Key") == KEY:
            status, kind, body = self.server.answer(self.command, path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._reply()

    def do_DELETE(self) -> None:
        self._reply()

    def log_request(self, *_: object) -> None:
        """Nothing on stderr: the tests look at `requests`."""


@pytest.fixture
def shelf() -> Iterator[ShelfServer]:
    server = ShelfServer()
    server.tags = {
        "team/app": {"v1": make_image("1"), "v2": make_image("2")},
        "solo": {"latest": make_image("3")},
    }
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean venv with wheels of regfs and of the third party, both just built; libraries are those of the tests."""
    base = tmp_path_factory.mktemp("third-party")
    ours, theirs = base / "regfs-source", base / "shelf-source"
    shutil.copytree(ROOT / "regfs", ours / "regfs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, ours / name)
    (ours / "README.md").touch()
    theirs.mkdir()
    (theirs / "pyproject.toml").write_text(PYPROJECT)
    (theirs / "regfs_shelf.py").write_text(textwrap.dedent(MODULE))
    pip("wheel", "--wheel-dir", base / "wheels", "--no-build-isolation", ours, theirs)
    venv = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip("--python", venv / "bin" / "python", "install", *sorted((base / "wheels").glob("*.whl")))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = venv / "lib" / version / "site-packages" / "libraries.pth"
    libraries.write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return venv


def pip(*arguments: str | Path) -> None:
    """Run pip without any network."""
    options = ["--quiet", "--disable-pip-version-check"]
    at = 2 if arguments[0] == "--python" else 0
    command = [*arguments[: at + 1], "--no-deps", "--no-index", *arguments[at + 1 :]]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def stranger(site: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home in which `regfs` is the one of the clean venv."""
    monkeypatch.setattr(mounts, "regfs_command", lambda: [str(site / "bin" / "regfs")])
    return home


def credentials(home: Home, address: str, key: str) -> Path:
    file = home.path / "key"
    file.write_text(f"registry={address}\nusername=key\npassword={key}\n")
    file.chmod(0o600)
    return file


def test_the_wheel_is_found_with_where_it_comes_from(stranger: Home, site: Path) -> None:
    lines = [line.split() for line in stranger.regfs("plugins", check=True).stdout.splitlines()]
    ours = [line for line in lines if "shelf" in line[1]]
    assert ours == [
        ["provider", "shelf", "regfs-shelf", "1.2", "regfs_shelf:Shelf", "ok"],
        ["auth", "shelf-key", "regfs-shelf", "1.2", "regfs_shelf:ShelfKey", "ok"],
    ]
    where = subprocess.run(
        [site / "bin" / "python", "-c", "import regfs; print(regfs.__file__)"],
        capture_output=True, text=True, check=True, cwd=site,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))


def test_its_registry_is_listed_read_and_deleted_from_through_the_mount(
    stranger: Home, shelf: ShelfServer
) -> None:
    v1, v2 = shelf.tags["team/app"]["v1"], shelf.tags["team/app"]["v2"]
    file = credentials(stranger, shelf.address, KEY)
    with mounted("--rw", "-o", f"credentials={file}", shelf.address, home=stranger) as mount:
        assert mount.run("ls").stdout.split() == ["solo", "team"]
        assert mount.run("ls team/app").stdout.split() == ["v1", "v2"]
        assert mount.read("team/app/v1/manifest.json") == v1.manifest.raw
        assert mount.read("team/app/v1/config.json") == v1.config.raw
        assert mount.read("team/app/v1/digest").decode() == f"{v1.digest}\n"
        mount.run("rm -r team/app/v1", check=True)
        assert mount.run("ls team/app").stdout.split() == ["v2"]
        assert mount.read("team/app/v2/manifest.json") == v2.manifest.raw
        assert mount.run("test -e team/app/none").returncode == 1
    assert list(shelf.tags["team/app"]) == ["v2"]
    assert [line for line in shelf.requests if line.startswith("DELETE")] == ["DELETE /shelf/team/app:v1"]


def test_its_registry_is_not_written_to_through_a_read_only_mount(stranger: Home, shelf: ShelfServer) -> None:
    file = credentials(stranger, shelf.address, KEY)
    with mounted("-o", f"credentials={file}", shelf.address, home=stranger) as mount:
        refused = mount.run("rm -r team/app/v1")
        assert refused.returncode == 1
        assert "Read-only file system" in refused.stderr
    assert {line.split()[0] for line in shelf.requests} == {"GET"}


def test_a_key_that_its_registry_does_not_take_is_no_entry_and_says_what_to_do(
    stranger: Home, shelf: ShelfServer
) -> None:
    file = credentials(stranger, shelf.address, "another-key-altogether")
    with mounted("-o", f"credentials={file}", shelf.address, home=stranger) as mount:
        refused = mount.run("cat team/app/v1/manifest.json")
        assert "Permission denied" in refused.stderr
        errors = mount.errors()
        assert "the shelf wants another key" in errors
        assert "regfs login" in errors
        assert "another-key-altogether" not in errors + mount.log() + mount.stderr
