"""A user who is not root, made for one test, with a Python of their own that mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAMESPACE = """
set -e
rm -f "$HOME/fuse-device"
mknod -m 0666 "$HOME/fuse-device" c 10 229
mount --bind "$HOME/fuse-device" /dev/fuse
{before}
exec runuser -u {user} -- env HOME="$HOME" sh -c '{script}'
"""


class UserHome:
    """A user's home. Their `regfs` is a copy of this tree, run by Debian's Python with this venv's packages."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    def run(
        self, script: str, *, before: str = "", timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run shell lines as the user, in a mount namespace where /dev/fuse is open to all, as udev leaves it.

        ``before`` runs in that namespace as root. Without single quotes, both. ``$HOME`` is the user's.
        """
        lines = _NAMESPACE.format(before=before, user=self.name, script=f"cd; {self._preamble()}{script}")
        return subprocess.run(
            ["unshare", "-m", "sh", "-c", lines],
            env={"PATH": os.environ["PATH"], "HOME": str(self.path), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def mount(self, folder: str, *options: str, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run ``regfs mount``, for a registry where nobody answers."""
        return self.run(f"regfs mount {' '.join(options)} 127.0.0.1:1 {folder}", before=before)

    def _preamble(self) -> str:
        return f'regfs() {{ PYTHONPATH={self.path}/lib {sys.base_prefix}/bin/python3 -m regfs "$@"; }}; '


@contextmanager
def new_user(base: Path) -> Iterator[UserHome]:
    """Make a user with a home below ``base``, and remove both at the end."""
    name = f"regfs-{os.getpid()}"
    home = base / name
    subprocess.run(["useradd", "--no-create-home", "--home-dir", str(home), name], check=True)
    try:
        home.mkdir()
        _copy_packages(home / "lib")
        subprocess.run(["chown", "-R", name, str(home)], check=True)
        yield UserHome(name, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run(["userdel", name], check=False, capture_output=True)


def _copy_packages(to: Path) -> None:
    """Copy this tree and the packages it imports: the user may read neither /root nor another's venv."""
    import pyfuse3

    import regfs

    packages = Path(pyfuse3.__file__).parent.parent
    unwanted = shutil.ignore_patterns(
        "__pycache__", "mypy*", "ruff*", "pip*", "pytest*", "hypothesis*", "*.so.debug"
    )
    shutil.copytree(packages, to, symlinks=True, ignore=unwanted)
    shutil.copytree(Path(regfs.__file__).parent, to / "regfs", dirs_exist_ok=True, ignore=unwanted)
