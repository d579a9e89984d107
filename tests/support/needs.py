"""What a test needs of the machine: it is skipped, by name, where that is not to be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def need_programs(*names: str) -> None:
    """Skip the test unless all programs are on the PATH."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def need_fuse() -> None:
    """Skip the test unless FUSE file systems can be mounted here."""
    need_programs("fusermount3")
    device = Path("/dev/fuse")
    if not device.exists():
        pytest.skip("/dev/fuse is not there")
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as error:
        pytest.skip(f"/dev/fuse cannot be opened: {error.strerror}")


def need_root() -> None:
    """Skip the test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("only root can do this")
