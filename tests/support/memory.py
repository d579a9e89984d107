"""What a test process keeps of memory that no test needs any more."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Final

_MUCH: Final = 32 * 1024 * 1024
_PAGE: Final = os.sysconf("SC_PAGESIZE")


def resident() -> int:
    """This process's resident memory, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


class Tidier:
    """Gives back what tests have left, once that is much.

    A layer that a test opened, with its decoders, is let go by the collector of cycles, which counts objects and not
    bytes, and comes late for a few large ones; and what threads have freed stays in the C library's arenas.
    """

    def __init__(self) -> None:
        self._left = resident()
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def tidy(self) -> None:
        """Collect and give back, where over 32 MiB have come since it last did."""
        if resident() - self._left < _MUCH:
            return
        gc.collect()
        if self._trim is not None:
            self._trim(0)
        self._left = resident()
