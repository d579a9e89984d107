"""The real command line and real mounts, each with a home folder of its own, surely unmounted at the end."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support import processes
from tests.support.needs import need_fuse

Command = str | Sequence[str | Path]

_BAD_LOG: Final = re.compile(r"\b(ERROR|CRITICAL)\b|Traceback \(most recent call last\)")

"""pyfuse3's words where the kernel took the mount away while the last `close` was being answered: no fault of ours."""


class Home:
    """A home folder: config, state, runtime and Docker folders, and an environment that leads only there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in (self.config, self.docker, self.runtime):
            folder.mkdir(parents=True, exist_ok=True)
        self.runtime.chmod(0o700)
        self.variables: dict[str, str] = {}
        """Further variables of the environment; a test may set some."""

    @property
    def config(self) -> Path:
        """``$XDG_CONFIG_HOME/regfs``."""
        return self.path / ".config" / "regfs"

    @property
    def docker(self) -> Path:
        """``$DOCKER_CONFIG``."""
        return self.path / ".docker"

    @property
    def runtime(self) -> Path:
        """``$XDG_RUNTIME_DIR``."""
        return self.path / "run"

    @property
    def state(self) -> Path:
        """``$XDG_STATE_HOME``."""
        return self.path / ".local" / "state"

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of a command: no proxy, no keyring, nothing of the machine's user."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.path),
            "XDG_CONFIG_HOME": str(self.path / ".config"),
            "XDG_STATE_HOME": str(self.state),
            "XDG_DATA_HOME": str(self.path / ".local" / "share"),
            "XDG_CACHE_HOME": str(self.path / ".cache"),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "DOCKER_CONFIG": str(self.docker),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            **self.variables,
        }

    def write_config(self, text: str) -> Path:
        """Write regfs's own config.toml."""
        place = self.config / "config.toml"
        place.write_text(text)
        return place

    def docker_login(self, host: str, user: str, password: str) -> None:
        """Keep a password in Docker's config.json, as `docker login` does without a helper."""
        place = self.docker / "config.json"
        config = json.loads(place.read_text()) if place.exists() else {}
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        config.setdefault("auths", {})[host] = {"auth": secret}
        place.write_text(json.dumps(config))

    def regfs(
        self, *arguments: str | Path, stdin: str = "", timeout: float = 60.0, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line: exit code and outputs. With ``check`` any exit code but 0 fails the test."""
        done = _run([*regfs_command(), *arguments], self.env, self.path, stdin, timeout)
        assert not check or done.returncode == 0, f"regfs {arguments[0]}: {done.stderr}"
        return done


def regfs_command() -> list[str]:
    """The `regfs` of the Python that runs the tests."""
    script = Path(sys.executable).with_name("regfs")
    return [str(script)] if script.exists() else [sys.executable, "-m", "regfs"]


@dataclass
class Mount:
    """A live mount. ``pid`` is the daemon's; ``stderr`` what `regfs mount` had to say."""

    path: Path
    log_path: Path
    home: Home
    pid: int
    stderr: str = ""

    def run(
        self, command: Command, *, timeout: float = 30.0, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program (a list) or a line of shell (a string) in the mount's root.

        With ``check`` any exit code but 0 fails the test; so does a command that is not done in ``timeout`` seconds.
        """
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        done = _run(argv, self.home.env, self.path, "", timeout)
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr}"
        return done

    def read(self, path: str) -> bytes:
        """The bytes of a file in the mount, read by `cat` so that a mount that hangs ends the test and not the run."""
        done = subprocess.run(["cat", self.path / path], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def list(self, path: str = ".") -> list[str]:
        """The names in a folder, sorted, those that begin with a dot included."""
        return sorted(self.run(["ls", "-A", "--", path], check=True).stdout.splitlines())

    def errors(self) -> str:
        """What `.regfs/errors` says now."""
        return self.read(".regfs/errors").decode()

    def status(self) -> dict[str, Any]:
        """What `.regfs/status.json` says now."""
        status: dict[str, Any] = json.loads(self.read(".regfs/status.json"))
        return status

    def log(self) -> str:
        """The daemon's log so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""

    @property
    def is_mounted(self) -> bool:
        """Whether the kernel has a FUSE mount there (it may be a dead one)."""
        return self.path in fuse_mounts()

    def umount(self) -> None:
        """Unmount as a user does, and wait until the daemon has ended."""
        subprocess.run(["fusermount3", "-u", self.path], check=True, capture_output=True, timeout=30)
        processes.wait_for_end(self.pid)

    def kill(self) -> None:
        """Kill the daemon: the mount stays, dead, until somebody clears it."""
        processes.kill(self.pid)


@contextmanager
def mounted(
    *arguments: str | Path,
    home: Home,
    path: Path | None = None,
    foreground: bool = False,
    expected_in_log: Sequence[str] = (),
) -> Iterator[Mount]:
    """Run ``regfs mount ARGUMENTS… PATH`` and give the live mount; at the end nothing of it is left.

    ``path`` is made when it is not there (default: a folder next to the home). Fails when the mount does not come up,
    when the daemon's log holds an error that no pattern of ``expected_in_log`` matches, and when the daemon does not
    end by itself after its unmount.
    """
    need_fuse()
    folder = path or home.path.parent / f"mnt-{len(list(home.path.parent.glob('mnt-*')))}"
    if folder not in fuse_mounts():  # a dead mount of ours may be there, which cannot even be looked at
        folder.mkdir(parents=True, exist_ok=True)
    log = home.path / f"{folder.name}.log"
    command = [*regfs_command(), "mount", "--log-file", str(log), *map(str, arguments), str(folder)]
    mount = Mount(folder, log, home, 0)
    try:
        _start(mount, command, foreground)
        yield mount
        _end(mount)
        check_log(mount.log(), expected_in_log)
    finally:
        force_unmount(folder)
        if mount.pid:
            processes.kill(mount.pid)


def check_log(text: str, expected: Sequence[str] = ()) -> None:
    """Fail on a line of a log that tells of an error which no pattern of ``expected`` matches."""
    allowed = [re.compile(pattern) for pattern in expected]
    bad = [line for line in text.splitlines() if _BAD_LOG.search(line)]
    unexpected = [line for line in bad if not any(pattern.search(line) for pattern in allowed)]
    assert unexpected == [], "the daemon's log holds errors:\n" + text[-4000:]


def fuse_mounts() -> list[Path]:
    """All FUSE mounts of this mount namespace."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("fuse") and not rest.startswith("fusectl"):
            point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields.split()[4])
            found.append(Path(point))
    return found


def force_unmount(path: Path) -> None:
    """Take a mount away, dead or alive, in use or not."""
    while path in fuse_mounts():
        for command in (["fusermount3", "-u", "-z"], ["umount", "-l"]):
            done = subprocess.run([*command, path], capture_output=True, timeout=30, check=False)
            if done.returncode == 0:
                break
        else:
            raise AssertionError(f"{path} cannot be unmounted")


def _start(mount: Mount, command: Sequence[str], foreground: bool) -> None:
    before = set(processes.children())
    if foreground:
        mount.pid = processes.start([*command, "-f"], mount.log_path, mount.home.env).pid
        processes.wait_until(lambda: mount.is_mounted or not processes.alive(mount.pid), "the mount comes up")
        assert mount.is_mounted, mount.log()
        return
    done = _run(command, mount.home.env, mount.home.path, "", 60.0)
    mount.stderr = done.stderr
    own = {p: line for p, line in processes.children().items() if p not in before and str(mount.path) in line}
    mount.pid = next(iter(own), 0)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}\n{mount.log()[-4000:]}"
    assert mount.is_mounted, f"`regfs mount` returned, and there is no mount: {done.stderr}"
    assert mount.pid, "`regfs mount` returned, and no daemon of it lives"


def _end(mount: Mount) -> None:
    if mount.is_mounted:
        done = subprocess.run(["fusermount3", "-u", mount.path], capture_output=True, timeout=30, check=False)
        if done.returncode != 0:
            raise AssertionError(f"the mount is in use at the test's end: {done.stderr.decode()}")
    if processes.alive(mount.pid):
        processes.wait_for_end(mount.pid)


def _run(
    argv: Sequence[str | Path], env: Mapping[str, str], folder: Path, stdin: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        input=stdin,
        env=dict(env),
        cwd=folder,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout,
        check=False,
    )
