"""What is shipped, and what it is built from: the wheel, the lock, and the commands of a clone."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.needs import need_programs

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = [ROOT / "requirements" / name for name in ("build.txt", "dev.txt")]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "regfs")


def locked(lock: Path) -> dict[str, tuple[Requirement, list[str]]]:
    """Name → the pinned requirement and its hashes, of each package in a lock."""
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n?", "", lock.read_text()).strip())
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for entry in entries:
        words = entry.split(" \\\n")
        requirement = Requirement(words[0])
        hashes = [word.strip().removeprefix("--hash=") for word in words[1:]]
        found[canonicalize_name(requirement.name)] = (requirement, hashes)
    return found


def pinned(requirement: Requirement) -> Version:
    """The one version that a locked requirement allows."""
    (only,) = requirement.specifier
    assert only.operator == "=="
    return Version(only.version)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy of what is shipped, so that nothing is written into the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SHIPPED:
        source, copy = ROOT / name, folder / "tree" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    built = subprocess.run(
        [*pip, "--no-build-isolation", "--no-index", "--wheel-dir", folder, folder / "tree"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    """A file of the wheel's metadata folder."""
    (path,) = (path for path in wheel.namelist() if re.fullmatch(rf"[^/]+\.dist-info/{name}", path))
    return wheel.read(path).decode()


def test_the_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "regfs").rglob("*.py")}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "regfs" / "templates").glob("*/*.txt")}
    assert shipped == modules | templates | {"regfs/py.typed"}
    assert templates


def test_the_wheel_says_its_licence_its_python_and_what_it_needs(wheel: zipfile.ZipFile) -> None:
    facts = email.message_from_string(metadata(wheel, "METADATA"))
    assert facts["License-Expression"] == "MIT"
    assert facts["Requires-Python"] == ">=3.11"
    assert facts["Description-Content-Type"] == "text/markdown"
    required = [Requirement(text) for text in facts.get_all("Requires-Dist", []) if "extra" not in text]
    needed = {canonicalize_name(requirement.name) for requirement in required}
    assert needed == {
        canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]
    }
    assert "the regfs authors" in metadata(wheel, "licenses/LICENSE")


def test_every_entry_point_of_the_wheel_names_something_that_is_there(wheel: zipfile.ZipFile) -> None:
    targets = re.findall(r"(?m)^\S+ = (\S+):(\S+)$", metadata(wheel, "entry_points.txt"))
    assert len(targets) >= 6
    for module, attribute in targets:
        found = subprocess.run(
            [sys.executable, "-c", f"import {module} as m; m.{attribute}"], capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_one_version_and_hashes(lock: Path) -> None:
    packages = locked(lock)
    assert packages
    for requirement, hashes in packages.values():
        pinned(requirement)
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_the_lock_names_no_address(lock: Path) -> None:
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted| @ ", lock.read_text())


def test_the_lock_has_all_that_the_project_asks_for() -> None:
    project = PROJECT["project"]
    packages = locked(LOCKS[1])
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        wanted = Requirement(text)
        requirement, _ = packages[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(pinned(requirement)), f"{wanted} is locked as {requirement}"


def test_the_lock_has_all_that_builds_the_project() -> None:
    packages = locked(LOCKS[0])
    for text in PROJECT["build-system"]["requires"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned(packages[canonicalize_name(wanted.name)][0]))


def test_the_two_locks_agree() -> None:
    build, dev = map(locked, LOCKS)
    for name in build.keys() & dev.keys():
        assert pinned(build[name][0]) == pinned(dev[name][0])


def test_make_alone_says_what_there_is_to_do() -> None:
    need_programs("make")
    helped = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said = set(re.findall(r"(?m)^make (\w+)", helped.stdout))
    assert said == {"help", "venv", "demo", "test", "check", "bench", "lock", "clean"}


@pytest.mark.parametrize(
    "script", [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"], ids=lambda p: p.name
)
def test_every_script_can_be_run_and_is_sound_to_the_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    if text.startswith("#!/bin/bash"):
        assert "set -euo pipefail" in text
        subprocess.run(["bash", "-n", script], check=True)


def test_the_version_is_said_once_and_heard_everywhere(wheel: zipfile.ZipFile) -> None:
    version = email.message_from_string(metadata(wheel, "METADATA"))["Version"]
    said = subprocess.run(
        [sys.executable, "-m", "regfs", "--version"], capture_output=True, text=True, check=True
    )
    assert version in said.stdout
