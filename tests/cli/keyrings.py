"""A real Secret Service in a D-Bus session of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import processes
from tests.support.mounts import Home
from tests.support.needs import need_programs

BACKEND = "keyring.backends.SecretService.Keyring"


@contextmanager
def secret_service(home: Home, *, unlocked: bool = True) -> Iterator[None]:
    """Run a session bus and gnome-keyring for ``home``, whose commands then use it. Locked, it would prompt."""
    need_programs("dbus-daemon", "gnome-keyring-daemon")
    log = home.path / "keyring.log"
    address = f"unix:path={home.runtime}/bus"
    bus = processes.start(["dbus-daemon", "--session", "--nofork", "--address", address], log, home.env)
    session = {"DBUS_SESSION_BUS_ADDRESS": address}
    keyring = None
    try:
        processes.wait_until((home.runtime / "bus").exists, "the session bus starts")
        keyring = _keyring({**home.env, **session}, home, unlocked)
        home.variables |= {**session, "PYTHON_KEYRING_BACKEND": BACKEND}
        processes.wait_until(lambda: _answers(home), "the Secret Service answers")
        yield
    finally:
        for name in (*session, "PYTHON_KEYRING_BACKEND"):
            home.variables.pop(name, None)
        for process in (keyring, bus):
            if process is not None:
                processes.stop(process)


def _keyring(env: dict[str, str], home: Home, unlocked: bool) -> subprocess.Popen[bytes]:
    argv = [
        "gnome-keyring-daemon",
        "--foreground",
        "--components=secrets",
        *(["--unlock"] if unlocked else []),
    ]
    with (home.path / "keyring.log").open("ab") as log:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log)
    assert process.stdin is not None
    process.stdin.write(b"the keyring's own password" if unlocked else b"")
    process.stdin.close()
    return process


def _answers(home: Home) -> bool:
    argv = [
        "dbus-send",
        "--session",
        "--print-reply",
        "--dest=org.freedesktop.DBus",
        "/",
        "org.freedesktop.DBus.GetNameOwner",
    ]
    done = subprocess.run(
        [*argv, "string:org.freedesktop.secrets"], env=home.env, capture_output=True, timeout=10, check=False
    )
    return done.returncode == 0


def secret_of(home: Home, address: str) -> str | None:
    """What the keyring keeps for an address (``account@address``, or the first of any account), asked by another program."""
    script = (
        "import secretstorage, sys\n"
        "bus = secretstorage.dbus_init()\n"
        "found = [item for item in secretstorage.search_items(bus, {'service': 'regfs'})\n"
        "         if ('@' + item.get_attributes()['username']).endswith('@' + sys.argv[1])]\n"
        "print(found[0].get_secret().decode() if found else '', end='')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, address],
        env={**os.environ, **home.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout or None
