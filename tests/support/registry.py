"""Docker's own registry server as Debian ships it, on a free port and in a folder of the test's own."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import bcrypt

from regfs.digest import Digest
from regfs.manifest import ACCEPT
from regfs.testing.images import Pushable, make_image, write_dir
from tests.support import processes
from tests.support.storage import lay_image, lay_repositories, lay_tags, new_storage
from tests.support.tls import Certificate
from tests.support.tokens import TokenServer

_ACCESS = re.compile(rb'"([A-Z]+) (\S+) HTTP/[\d.]+" (\d{3}) ')


class AccessLine(NamedTuple):
    """One request that the registry answered, by its own access log."""

    method: str
    target: str
    status: int


@dataclass(frozen=True)
class RegistryOptions:
    """How the registry is set up. ``htpasswd`` maps user names to passwords; ``prefix`` is like ``/hub/``.

    ``client_ca``: the authority of the client certificates that everybody has to show.
    """

    htpasswd: Mapping[str, str] = field(default_factory=dict)
    token: TokenServer | None = None
    tls: Certificate | None = None
    client_ca: Path | None = None
    delete: bool = True
    read_only: bool = False
    prefix: str = ""
    catalog_max_entries: int | None = None
    relative_urls: bool = False


class DockerRegistry:
    """A running registry. It keeps its port and its content over `stop` and `start`."""

    def __init__(self, folder: Path, options: RegistryOptions | None = None) -> None:
        self.options = options or RegistryOptions()
        self.folder = folder
        self._storage = new_storage()
        self.storage = Path(self._storage.name)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pushes = 0
        folder.mkdir(parents=True)

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, with the path prefix where there is one."""
        return f"127.0.0.1:{self.port}{self.options.prefix.rstrip('/')}"

    @property
    def url(self) -> str:
        """The base of all requests: it ends in ``/v2/``."""
        scheme = "https" if self.options.tls else "http"
        return f"{scheme}://{self.address}/v2/"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> DockerRegistry:
        """Start the server, on the port that it had before if it had one, and wait until it accepts connections."""
        wanted = self.port
        for _ in range(1 if wanted else 5):
            self.port = wanted or processes.free_port()
            process = processes.start(["docker-registry", "serve", self._write_config()], self._log)
            processes.wait_until(
                lambda p=process: processes.listens(p.pid, self.port) or p.poll() is not None,  # type: ignore[misc]
                "docker-registry starts",
            )
            if process.poll() is None:
                self._process = process
                return self
        raise AssertionError(f"docker-registry does not start: {self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """End the server; its port and content stay its own."""
        if self._process is not None:
            processes.stop(self._process)
            self._process = None

    def remove(self) -> None:
        """End the server and remove its content."""
        self.stop()
        self._storage.cleanup()

    def requests(self) -> list[AccessLine]:
        """What was asked since the registry was first started, in the order of the answers."""
        found = _ACCESS.findall(self._log.read_bytes() if self._log.exists() else b"")
        return [AccessLine(method.decode(), target.decode(), int(status)) for method, target, status in found]

    # ── content ──────────────────────────────────────────────────────────────────────────────────

    def push(
        self, repository: str, tags: str | Iterable[str] = "latest", what: Pushable | None = None
    ) -> Pushable:
        """Push an image or index by `skopeo copy` under each tag; the default is an image of its own."""
        names = [tags] if isinstance(tags, str) else list(tags)
        pushed = make_image(f"{repository}:{','.join(names[:3])}") if what is None else what
        self._pushes += 1
        source = write_dir(self.folder / f"push-{self._pushes}", pushed)
        for name in names:
            self.skopeo(
                "copy", "--all", "--preserve-digests", f"dir:{source}", self.reference(repository, name)
            )
        return pushed

    def reference(self, repository: str, tag: str) -> str:
        """How skopeo calls a tag here."""
        return f"docker://127.0.0.1:{self.port}/{repository}:{tag}"

    def skopeo(self, command: str, *arguments: str) -> str:
        """Run skopeo against this registry, signed in as its first user; returns what it printed."""
        policy = ["--insecure-policy", command, "--authfile", str(self._auth_file())]
        tls = ["--dest-tls-verify=false"] if command == "copy" else ["--tls-verify=false"]
        done = subprocess.run(
            ["skopeo", *policy, *tls, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def lay_image(self, repository: str, what: Pushable, tags: Iterable[str] = ()) -> None:
        """Lay content into the storage tree, without a push."""
        lay_image(self.storage, repository, what, tags)

    def lay_tags(self, repository: str, digest: Digest, tags: Iterable[str]) -> None:
        """Point many tags at a manifest that is there."""
        lay_tags(self.storage, repository, digest, tags)

    def lay_repositories(
        self, names: Iterable[str], what: Pushable, tags: Iterable[str] = ("latest",)
    ) -> None:
        """Lay many repositories with the same content."""
        lay_repositories(self.storage, names, what, tags)

    def tags(self, repository: str) -> dict[str, Digest]:
        """The tags of a repository and where they point, read in the storage tree."""
        folder = self.storage / "docker/registry/v2/repositories" / repository / "_manifests/tags"
        links = {place.name: place / "current/link" for place in folder.iterdir()} if folder.exists() else {}
        return {name: Digest.parse(link.read_text()) for name, link in links.items() if link.exists()}

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> bytes:
        """GET ``target`` below ``/v2/``, unverified where there is TLS. urllib's errors come through."""
        # The address is the loopback one, whatever proxy the environment names.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        request = urllib.request.Request(self.url + target, headers={"Accept": ACCEPT, **(headers or {})})
        with opener.open(request, timeout=30) as reply:
            body: bytes = reply.read()
            return body

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _log(self) -> Path:
        return self.folder / "registry.log"

    def _write_config(self) -> Path:
        place = self.folder / "config.json"  # JSON is YAML
        place.write_text(json.dumps(self._config()))
        return place

    def _config(self) -> dict[str, Any]:
        options = self.options
        storage: dict[str, Any] = {
            "filesystem": {"rootdirectory": str(self.storage)},
            "delete": {"enabled": options.delete},
            "maintenance": {
                "readonly": {"enabled": options.read_only},
                "uploadpurging": {"enabled": False},
            },
        }
        http: dict[str, Any] = {
            "addr": f"127.0.0.1:{self.port}",
            "secret": "a secret of the tests",
            "relativeurls": options.relative_urls,
        }
        if options.prefix:
            http["prefix"] = options.prefix
        if options.tls:
            http["tls"] = {"certificate": str(options.tls.certificate), "key": str(options.tls.key)}
            if options.client_ca:
                http["tls"]["clientcas"] = [str(options.client_ca)]
        config: dict[str, Any] = {"version": 0.1, "log": {"level": "error"}, "storage": storage, "http": http}
        if options.catalog_max_entries is not None:
            config["catalog"] = {"maxentries": options.catalog_max_entries}
        if options.htpasswd:
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(self._htpasswd())}}
        if options.token:
            config["auth"] = {"token": options.token.registry_settings()}
        return config

    def _htpasswd(self) -> Path:
        place = self.folder / "htpasswd"
        lines = [
            f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}"
            for user, password in self.options.htpasswd.items()
        ]
        place.write_text("\n".join(lines) + "\n")
        return place

    def _auth_file(self) -> Path:
        users = {**self.options.htpasswd, **(self.options.token.users if self.options.token else {})}
        auths = {}
        if users:
            user, password = next(iter(users.items()))
            auths = {
                f"127.0.0.1:{self.port}": {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
            }
        place = self.folder / "auth.json"
        place.write_text(json.dumps({"auths": auths}))
        return place
