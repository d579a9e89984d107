"""Fixtures for mounts as somebody who is not root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.users import UserHome, new_user
from tests.support.needs import need_fuse, need_programs, need_root


@pytest.fixture(scope="session")
def user_home() -> Iterator[UserHome]:
    """A user of the tests' own. pytest's temporary folders are closed to others, so theirs lies beside them."""
    need_fuse()
    need_root()
    need_programs("useradd", "userdel", "unshare", "runuser")
    base = Path(tempfile.mkdtemp(prefix="regfs-user-"))
    base.chmod(0o755)
    try:
        with new_user(base) as user:
            yield user
    finally:
        shutil.rmtree(base, ignore_errors=True)
