"""What the benchmarks play on: a registry, a slow road to it, fresh mounts, and a folder in memory to compare with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from benchmarks import harness
from regfs.manifest import ACCEPT
from regfs.testing.images import Image, make_image
from tests.support import mounts, processes
from tests.support.mounts import Home, Mount
from tests.support.registry import DockerRegistry

ROUND_TRIP: Final = 0.020
"""Seconds that the slow road adds to each round trip."""

"""pyfuse3's words when the kernel took the mount away while the last `close` was being answered."""

_SHARED_MEMORY: Final = Path("/dev/shm")


class Stage:
    """All of it, in temporary folders; nothing is left when it closes."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        processes.adopt_orphans()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="regfs-bench-")))
        self.memory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="regfs-bench-", dir=_SHARED_MEMORY))
        )
        self.home = Home(self.folder / "home")
        self._mount_count = 0
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(None, None, None)

    @property
    def env(self) -> dict[str, str]:
        """The environment of both sides."""
        return self.home.env

    def registry(self, name: str) -> DockerRegistry:
        """Docker's registry, started, and ended with the stage."""
        registry = DockerRegistry(self.folder / name)
        self._stack.callback(registry.stop)
        return registry.start()

    def pages(self, tags: int, size: int) -> int:
        """A registry that gives ``tags`` tags in pages of ``size``: its port."""
        return self._serve("benchmarks.pages", str(tags), str(size))

    def slow_road(self, port: int) -> int:
        """A port that leads to ``port`` and adds `ROUND_TRIP` to each round trip."""
        return self._serve("benchmarks.road", str(port), str(ROUND_TRIP))

    def _serve(self, module: str, *arguments: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_end, process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    @contextmanager
    def mount(self, port: int) -> Iterator[Mount]:
        """A fresh mount of the registry on a port: nothing of it is known yet."""
        self._mount_count += 1
        folder = self.folder / f"mnt-{self._mount_count}"
        with mounts.mounted(f"127.0.0.1:{port}", home=self.home, path=folder) as mount:
            yield mount
        folder.rmdir()

    def run(self, *argv: str | Path) -> float:
        """Run a program to its end and return the seconds it took."""
        return harness.run(argv, self.env)


def example_image() -> Image:
    """The image that all tags lead to."""
    return make_image("benchmark")


def curl(port: int, *targets: str) -> list[str]:
    """The command that gets all targets one after another over one connection, as a registry's client asks for them."""
    urls = [f"http://127.0.0.1:{port}{target}" for target in targets]
    return ["curl", "--silent", "--show-error", "--fail", "--header", f"Accept: {ACCEPT}", *urls]


def skopeo_inspect(port: int, repository: str, tag: str) -> list[str]:
    """The command that prints a tag's manifest."""
    reference = f"docker://127.0.0.1:{port}/{repository}:{tag}"
    return ["skopeo", "inspect", "--raw", "--tls-verify=false", reference]


def resident(pid: int) -> float:
    """The resident memory of a process, in MB (10^6 bytes)."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024 / 1e6


def python() -> str:
    """The Python that regfs runs on."""
    return os.fspath(Path(sys.executable))


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait()
