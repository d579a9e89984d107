"""How names are shown: `ls -l` lines, sizes and dates as ls writes them, and the same facts for JSON."""

from __future__ import annotations

import stat
import time
from typing import Final

from regfs.tree.attributes import Attributes, Kind

_HALF_A_YEAR: Final = 182 * 86_400
_TYPES: Final = {Kind.FOLDER: stat.S_IFDIR, Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK}


def mode(attributes: Attributes) -> str:
    """``dr-xr-xr-x``."""
    return stat.filemode(_TYPES[attributes.kind] | attributes.mode)


def date(time_ns: int, now: float) -> str:
    """A date as `ls -l` writes it: with the time of day where it is less than half a year old, else with the year."""
    seconds = time_ns / 1e9
    recent = now - _HALF_A_YEAR < seconds <= now + 1
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(seconds))


def iso_date(time_ns: int) -> str:
    """A date for JSON: RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))


def facts(attributes: Attributes) -> dict[str, object]:
    """What JSON outputs say of a name."""
    return {
        "type": attributes.kind.value,
        "mode": f"{attributes.mode:04o}",
        "size": attributes.size,
        "time": iso_date(attributes.time_ns),
    }
