"""The user unit that mounts a registry: systemd takes it, and it says what regfs promises."""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from regfs.reference import connection_name
from tests.support.needs import need_programs

UNIT = Path(__file__).parent.parent / "systemd" / "regfs@.service"


def verify(unit: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze verify` on a user unit, for a user whose home is ``home``."""
    need_programs("systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "--recursive-errors=no", "verify", unit],
        env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )


def settings() -> ConfigParser:
    """The unit's settings; those that are given twice are not looked at here."""
    parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys are CamelCase
    parser.read_string(UNIT.read_text())
    return parser


@pytest.mark.parametrize("name", ["", "localhost_5000", "registry.example.com_team", "my-own"])
def test_systemd_accepts_the_unit_for_any_connection(name: str, tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name.replace("@", f"@{name}")
    unit.write_bytes(UNIT.read_bytes())
    checked = verify(unit, tmp_path)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("Type=notify", "Type=notified"),
        ("ExecStart=/usr/bin/env", "ExecStart=/usr/bin/not-there"),
        ("RestartSec=5", "RestartSeconds=5"),
    ],
)
def test_a_unit_with_a_mistake_in_it_is_not_accepted(good: str, bad: str, tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert good in text
    unit = tmp_path / "regfs@name.service"
    unit.write_text(text.replace(good, bad))
    checked = verify(unit, tmp_path)
    assert checked.returncode != 0 or checked.stderr


def test_the_unit_is_started_once_the_mount_is_usable_and_stops_by_unmounting() -> None:
    service = settings()["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].split()[-4:] == ["-f", "$REGFS_OPTIONS", "%i", "%h/registries/%i"]
    assert service["ExecStop"].split()[-2:] == ["umount", "%h/registries/%i"]
    assert settings()["Install"]["WantedBy"] == "default.target"


def test_nothing_in_the_unit_hides_the_mount_or_keeps_fusermount3_from_mounting() -> None:
    hides = {"PrivateTmp", "PrivateMounts", "ProtectHome", "ProtectSystem", "NoNewPrivileges", "DynamicUser"}
    assert not hides & set(settings()["Service"])


def test_the_commands_of_the_unit_are_commands_of_regfs() -> None:
    for key in ("ExecStart", "ExecStop"):
        program, name, command, *_ = settings()["Service"][key].split()
        assert (program, name) == ("/usr/bin/env", "regfs")
        helped = subprocess.run(
            [sys.executable, "-m", "regfs", command, "--help"], capture_output=True, text=True, check=False
        )
        assert helped.returncode == 0, helped.stderr
        if command == "mount":
            assert "-f" in helped.stdout


@pytest.mark.parametrize("address", ["localhost:5000", "[::1]:5000", "https://host.example/a/b", "ghcr.io"])
def test_a_connection_s_name_is_a_unit_s_instance_as_it_stands(address: str) -> None:
    need_programs("systemd-escape")
    name = connection_name(address)
    unit = subprocess.run(
        ["systemd-escape", "--mangle", f"regfs@{name}.service"], capture_output=True, text=True, check=True
    )
    assert unit.stdout.strip() == f"regfs@{name}.service"
