"""The keyring: a real Secret Service in a D-Bus session of the test's own, and everything that is not one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.needs import need_programs

ROOT = Path(__file__).parents[2]
PASSWORD = "the keyring's own password"
SECRET = "pass word:ü"
STORE = f"store|reg.example|bob|{SECRET}|password"
GET = "get|reg.example"


@dataclass
class Answer:
    result: object
    error: str
    seconds: float


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path


def environment(home: Path, **more: str) -> dict[str, str]:
    unwanted = ("DBUS_", "XDG_", "PYTHON_KEYRING", "DISPLAY", "WAYLAND", "DOCKER", "GNOME_KEYRING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {
        **kept,
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_DATA_HOME": str(home / "data"),
        "PYTHONPATH": str(ROOT),
        **more,
    }


def client(commands: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "tests.auth.keyring_client", *commands]


def run(arguments: list[str], env: dict[str, str]) -> list[Answer]:
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return [Answer(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def in_session(home: Path, *commands: str, locked: bool = False, **more: str) -> list[Answer]:
    """Run the client beside a gnome-keyring, unlocked with its password or locked."""
    need_programs("dbus-run-session", "gnome-keyring-daemon")
    start = (
        "gnome-keyring-daemon --start --components=secrets"
        if locked
        else 'printf %s "$KEYRING_PASSWORD" | gnome-keyring-daemon --unlock --components=secrets'
    )
    script = f'{start} >/dev/null 2>&1; unset KEYRING_PASSWORD; exec "$@"'
    arguments = ["dbus-run-session", "--", "sh", "-c", script, "sh", *client(commands)]
    return run(arguments, environment(home, KEYRING_PASSWORD=PASSWORD, **more))


def without_session(home: Path, *commands: str, **more: str) -> list[Answer]:
    return run(client(commands), environment(home, DBUS_SESSION_BUS_ADDRESS="unix:path=/nonexistent", **more))


def test_a_secret_service_keeps_gives_and_forgets_a_credential(home: Path) -> None:
    identity = "store|reg.example/ns|acct|identity|identity token"
    answers = in_session(home, GET, STORE, GET, "get|reg.example:5000", identity, "get|reg.example/ns", GET)
    assert [answer.error for answer in answers] == [""] * 7
    bob = ["bob", SECRET, "password", "keyring"]
    other = ["acct", "identity", "identity token", "keyring"]
    assert [answer.result for answer in answers] == [None, None, bob, None, None, other, bob]
    answers = in_session(home, GET, "store|reg.example|bob|new|password", GET)
    assert [answer.result for answer in answers] == [bob, None, ["bob", "new", "password", "keyring"]]
    answers = in_session(home, "erase|reg.example", GET, "erase|reg.example")
    assert [answer.result for answer in answers] == [True, None, False]


def test_what_is_kept_is_encrypted(home: Path) -> None:
    in_session(home, STORE)
    for path in (home / "data").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_a_locked_keyring_that_cannot_prompt_says_so(home: Path) -> None:
    in_session(home, STORE)
    (answer,) = in_session(home, GET, locked=True)
    assert "is locked" in answer.error
    assert "SecretService" in answer.error
    assert answer.seconds < 11


def test_a_locked_keyring_that_prompts_where_nobody_sees_it_ends_in_ten_seconds(home: Path) -> None:
    in_session(home, STORE)
    services = home / "data/dbus-1/services"
    services.mkdir(parents=True)
    (services / "org.gnome.keyring.SystemPrompter.service").write_text(
        "[D-BUS Service]\nName=org.gnome.keyring.SystemPrompter\n"
        f"Exec={sys.executable} {ROOT}/tests/auth/silent_prompter.py\n"
    )
    docker_config(home)
    first, second, served = in_session(home, GET, GET, "chain|reg.example", locked=True)
    assert "no answer within 10 s" in first.error
    assert "unlock it" in first.error
    assert 9 < first.seconds < 11
    assert "still waits for an answer to its prompt" in second.error
    assert second.seconds < 1
    assert served.result == ["docker", "x", "password", str(home / ".docker/config.json")]


def docker_config(home: Path) -> None:
    (home / ".docker").mkdir()
    entry = {"auths": {"reg.example": {"username": "docker", "password": "x"}}}
    (home / ".docker/config.json").write_text(json.dumps(entry))


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("", "keyring.backends.fail.Keyring means that no Secret Service"),
        ("keyring.backends.null.Keyring", "keyring.backends.null.Keyring keeps nothing"),
        (
            "tests.auth.plain_keyring.PlaintextKeyring",
            "tests.auth.plain_keyring.PlaintextKeyring is not known to encrypt",
        ),
        ("no.such.Keyring", "ModuleNotFoundError"),
    ],
)
def test_what_is_no_safe_keyring_is_refused_by_name_and_other_sources_serve(
    home: Path, backend: str, said: str
) -> None:
    docker_config(home)
    more = {"PYTHON_KEYRING_BACKEND": backend} if backend else {}
    stored, got, erased, chained, none = without_session(
        home, STORE, GET, "erase|reg.example", "chain|reg.example", "chain|other.example", **more
    )
    for answer in (stored, got, erased, none):
        assert "no usable keyring" in answer.error
        assert said in answer.error
        assert SECRET not in answer.error
    assert not (home / "plain.json").exists()
    assert chained.result == ["docker", "x", "password", str(home / ".docker/config.json")]


def test_a_chain_of_backends_is_looked_into(home: Path) -> None:
    chain = "tests.auth.chained_keyring"
    (answer,) = without_session(home, STORE, PYTHON_KEYRING_BACKEND=f"{chain}.PlainChain")
    assert "tests.auth.plain_keyring.PlaintextKeyring is not known to encrypt" in answer.error
    _, got = in_session(home, STORE, GET, PYTHON_KEYRING_BACKEND=f"{chain}.Chain")
    assert got.result == ["bob", SECRET, "password", "keyring"]
    assert not (home / "plain.json").exists()


def test_an_entry_that_is_not_ours_is_no_credential(home: Path) -> None:
    set_by_hand = "import keyring; keyring.set_password('regfs', 'reg.example', 'a plain password')"
    script = (
        'printf %s "$KEYRING_PASSWORD" | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1;'
        ' "$1" -c "$2"; shift 2; exec "$@"'
    )
    need_programs("dbus-run-session", "gnome-keyring-daemon")
    arguments = [
        "dbus-run-session",
        "--",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        set_by_hand,
        *client((GET,)),
    ]
    (answer,) = run(arguments, environment(home, KEYRING_PASSWORD=PASSWORD))
    assert "was not written by regfs" in answer.error
    assert "plain password" not in answer.error
