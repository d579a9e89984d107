"""Resident memory of the daemon: idle after the mount, and after listing 100,000 tags."""

from __future__ import annotations

from benchmarks.harness import Row, below
from benchmarks.pages import REPOSITORY
from benchmarks.stage import Stage, example_image, resident

TITLE = "Memory of the daemon"
TAGS, PAGE = 100_000, 1_000


def measure(stage: Stage) -> list[Row]:
    """What the daemon holds, as the kernel counts it."""
    registry = stage.registry("memory")
    registry.lay_image(REPOSITORY, example_image(), ["v1"])
    with stage.mount(registry.port) as mount:
        idle = resident(mount.pid)
    with stage.mount(stage.pages(TAGS, PAGE)) as mount:
        stage.run("ls", "-l", mount.path / REPOSITORY)
        after = resident(mount.pid)
    return [
        below("resident, idle after the mount", idle, 50),
        below("resident, after `ls -l` of 100,000 tags", after, 150),
    ]
