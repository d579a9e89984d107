"""The kernel's table of mounts, read without touching a mount: touching a dead or stalled one would hang or fail.

Format: proc(5), ``/proc/pid/mountinfo``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OUR_TYPE = "fuse.regfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table. ``device`` is ``major:minor``."""

    path: Path
    type: str
    source: str
    device: str
    options: frozenset[str]

    @property
    def is_ours(self) -> bool:
        """Whether a regfs made it, this one or another."""
        return self.type == OUR_TYPE or (self.type == "fuse" and self.source.partition("#")[0] == "regfs")

    @property
    def is_automount_trigger(self) -> bool:
        """Whether it is only the trap that mounts something here when somebody comes by."""
        return self.type == "autofs"


def mounts(table: Path = Path("/proc/self/mountinfo")) -> Iterator[Mount]:
    """All mounts, in the order in which they were made: of two on one folder, the later covers the earlier."""
    for line in os.fsdecode(table.read_bytes()).splitlines():
        mount = parse_line(line)
        if mount is not None:
            yield mount


def parse_line(line: str) -> Mount | None:
    """Read one line of mountinfo; None for what is no such line."""
    fields, separator, rest = line.partition(" - ")
    before, after = fields.split(" "), rest.split(" ")
    if not separator or len(before) < 6 or len(after) < 2:
        return None
    return Mount(
        Path(_plain(before[4])), after[0], _plain(after[1]), before[2], frozenset(before[5].split(","))
    )


def mount_at(folder: Path) -> Mount | None:
    """What is mounted on ``folder`` itself (an absolute path without links), topmost, triggers included."""
    found = None
    for mount in mounts():
        if mount.path == folder:
            found = mount
    return found


def mount_of(path: Path) -> Mount | None:
    """The mount that ``path`` (absolute, without links) lies in, found by its name alone."""
    best = None
    for mount in mounts():
        if path.is_relative_to(mount.path) and (
            best is None or len(mount.path.parts) >= len(best.path.parts)
        ):
            best = mount
    return best


def _plain(field: str) -> str:
    r"""Undo the table's escapes: ``\040`` is a blank."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
