"""How soon the command line answers, and how soon a mount is usable."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Row, at_most_times, in_turn
from benchmarks.stage import Stage, example_image, python
from tests.support import processes
from tests.support.mounts import force_unmount, regfs_command

TITLE = "Starting"
HELP_ROUNDS = 40
MOUNT_ROUNDS = 20


def measure(stage: Stage) -> list[Row]:
    """`regfs --help` beside an empty Python; `regfs mount` beside a Python that imports what it stands on."""
    return [_help(stage), _mount(stage)]


def _help(stage: Stage) -> Row:
    ours, beside = in_turn(
        HELP_ROUNDS,
        lambda: stage.run(*regfs_command(), "--help"),
        lambda: stage.run(python(), "-c", "pass"),
    )
    return at_most_times("`regfs --help`, beside `python3 -c pass`", ours, beside, 6)


def _mount(stage: Stage) -> Row:
    registry = stage.registry("startup")
    registry.lay_image("team/app", example_image(), ["v1"])
    folder = stage.folder / "startup-mount"
    ours, beside = in_turn(
        MOUNT_ROUNDS,
        lambda: _mount_once(stage, registry.port, folder),
        lambda: stage.run(python(), "-c", "import pyfuse3, trio, httpx"),
    )
    what = "`regfs mount`, until it returns, beside `python3 -c 'import pyfuse3, trio, httpx'`"
    return at_most_times(what, ours, beside, 1.7)


def _mount_once(stage: Stage, port: int, folder: Path) -> float:
    folder.mkdir()
    before = set(processes.children())
    try:
        took = stage.run(*regfs_command(), "mount", f"127.0.0.1:{port}", folder)
        # Usable means that the very next command works.
        stage.run("cat", folder / "team/app/v1/manifest.json")
    finally:
        force_unmount(folder)
        for pid in set(processes.children()) - before:
            processes.wait_for_end(pid)
        folder.rmdir()
    return took
