"""``.regfs``: the daemon's own folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from regfs.errors import NotFound
from regfs.tree.errorlog import ErrorLog
from regfs.tree.nodes import Folder, Node

NAME = ".regfs"

README = """\
This folder belongs to regfs, which mounts container registries as a filesystem.

status.json   connections, sign-ins, counters and limits, as they are now
errors        the last 200 failures, each with what to do about it (tail -f works)
metrics       the same counters for Prometheus

A folder that is one of a registry's:
  TAG/manifest.json   the manifest's exact bytes        TAG/digest   its digest
  TAG/config.json     the image config's exact bytes    TAG/platforms/   of an index
  TAG/layers/         its blobs as they are stored      TAG/rootfs/      its merged file tree
  TAG/referrers/      signatures, SBOMs, attestations   TAG/oci/         an OCI image layout
Found by name, in no listing:
  REPOSITORY/.digests/sha256-HEX/   any manifest by its digest
  REPOSITORY/.tags/TAG/   REPOSITORY/.repos/NAME/   where a tag and a nested repository share a name

`regfs --help` lists the commands; `regfs refresh PATH` forgets listings.
"""


class OwnFolder(Folder):
    """``.regfs`` itself: mode 0700, since it names what its owner reads."""

    __slots__ = ("_born", "_files")

    def __init__(self, parent: Node, files: Mapping[str, Callable[[Node, str], Node]], born: int) -> None:
        super().__init__(parent, NAME)
        self._files = files
        self._born = born

    @property
    def mode(self) -> int | None:
        """0700, whatever the mount's modes are."""
        return 0o700

    @property
    def time_ns(self) -> int:
        """When this mount began, in nanoseconds since 1970."""
        return self._born

    @property
    def holds_for(self) -> float:
        """1 s."""
        return 1.0

    async def find(self, name: str) -> Node:
        """One of the daemon's files. Raises NotFound."""
        if name not in self._files:
            raise NotFound(f"{NAME} holds no {name}")
        return self.child(name, lambda: self._files[name](self, name))

    async def entries(self) -> Sequence[Node]:
        """All of them."""
        return [await self.find(name) for name in self._files]


class Snapshot(Node):
    """A file of ours, made anew each time it is opened."""

    __slots__ = ("_render",)

    def __init__(self, parent: Node, name: str, render: Callable[[], str]) -> None:
        super().__init__(parent, name)
        self._render = render

    @property
    def mode(self) -> int | None:
        """0600: it may name what only its owner reads."""
        return 0o600

    @property
    def size(self) -> int:
        """In bytes, as it is now; another reading may have another."""
        return len(self._render().encode())

    async def content(self) -> bytes:
        """As it is now: an open file keeps what it was opened with."""
        return self._render().encode()


class ErrorsFile(Node):
    """``errors``: read as it grows."""

    __slots__ = ("log",)

    def __init__(self, parent: Node, name: str, log: ErrorLog) -> None:
        super().__init__(parent, name)
        self.log = log

    @property
    def mode(self) -> int | None:
        """0600: it may name what only its owner reads."""
        return 0o600

    @property
    def size(self) -> int:
        """In bytes, as it is now."""
        return self.log.size

    async def content(self) -> bytes:
        """All that is kept: `KEEP_LINES` lines, and more while somebody reads on."""
        return self.log.read(0, self.log.size)


def as_json(status: Mapping[str, object]) -> str:
    """``status.json``."""
    return json.dumps(status, indent=2) + "\n"


def as_metrics(counters: Mapping[str, Mapping[str, int]]) -> str:
    """Prometheus' text format 0.0.4: one counter family a name, one sample a registry."""
    lines = []
    for name in sorted({name for values in counters.values() for name in values}):
        lines.append(f"# TYPE regfs_{name}_total counter")
        for registry, values in counters.items():
            if name in values:
                label = registry.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
                lines.append(f'regfs_{name}_total{{registry="{label}"}} {values[name]}')
    return "".join(f"{line}\n" for line in lines)
