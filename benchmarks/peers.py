"""The mounts that stand beside ours, of an archive on disk; a row says so by name where a program is not there."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.harness import Row
from benchmarks.stage import Stage
from tests.support.mounts import force_unmount

RATARMOUNT: Final = "ratarmount"
SQUASHFUSE: Final = "squashfuse_ll"
_PACKER: Final = "sqfstar"
_WAIT: Final = 120.0


def is_there(program: str) -> bool:
    """Say whether a peer, and what it needs to be of use here, is installed."""
    needed = (program, _PACKER) if program == SQUASHFUSE else (program,)
    return all(map(shutil.which, needed))


def absent(what: str, program: str, target: str) -> Row:
    """The row of a peer that could not be had: nothing was measured, so nothing was met."""
    return Row(what, "", "", f"not measured: {program} is not installed", target, False)


@contextmanager
def ratarmount(stage: Stage, archive: Path) -> Iterator[Path]:
    """A fresh mount of an archive by ratarmount, which keeps its index beside it."""
    with _mounted(stage, RATARMOUNT, "--index-file", archive.with_suffix(".index"), archive) as folder:
        yield folder


@contextmanager
def squashfuse(stage: Stage, image: Path) -> Iterator[Path]:
    """A fresh mount of a squashfs image."""
    with _mounted(stage, SQUASHFUSE, image) as folder:
        yield folder


def pack_squashfs(stage: Stage, archive: Path) -> Path:
    """The files of an archive of gzip as a squashfs image, compressed by gzip too."""
    image = archive.with_suffix(".squashfs")
    with subprocess.Popen(["gzip", "-dc", archive], stdout=subprocess.PIPE) as unpacking:
        packing: list[str | Path] = [_PACKER, "-comp", "gzip", "-quiet", "-no-progress", image]
        subprocess.run(packing, stdin=unpacking.stdout, env=stage.env, check=True, capture_output=True)
    return image


@contextmanager
def _mounted(stage: Stage, *command: str | Path) -> Iterator[Path]:
    folder = stage.folder / "peer"
    folder.mkdir()
    try:
        stage.run(*command, folder)
        _await_names(folder)
        yield folder
    finally:
        force_unmount(folder)
        folder.rmdir()


def _await_names(folder: Path) -> None:
    deadline = time.monotonic() + _WAIT
    while not any(folder.iterdir()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing was mounted on {folder}")
        time.sleep(0.005)
