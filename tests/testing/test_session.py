"""The session's own rules: a skip can be made a failure, and what is left behind is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = [
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=--import-mode=importlib",
]


def session(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one test file with the conftest of ours."""
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_it.py").write_text(test)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REGFS_NO_SKIP": "0"}
    command = [*RUN, "--rootdir", str(folder), f"--basetemp={folder}/tmp", *options, str(folder)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


SKIPS = """
import pytest
from tests.support.needs import need_programs

def test_skips():
    need_programs("a-program-that-nobody-has")

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert False
"""


def test_a_skip_names_what_is_missing(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "-rs")
    assert done.returncode == 0, done.stdout
    assert "not installed: a-program-that-nobody-has" in done.stdout


def test_a_skip_fails_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    done = session(tmp_path, SKIPS, "--no-skips")
    assert done.returncode == 1, done.stdout
    assert "nothing may be skipped here" in done.stdout
    assert "1 failed, 1 xfailed" in done.stdout


def test_a_skipped_module_fails_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    module = "import pytest\npytest.skip('the whole of it', allow_module_level=True)\n"
    assert session(tmp_path, module).returncode == 5
    done = session(tmp_path, module, "--no-skips")
    assert done.returncode not in (0, 5), done.stdout
    assert "the whole of it" in done.stdout


@pytest.mark.parametrize("command", ["sleep 60", "sh -c 'sleep 61 & exit'"])
def test_a_process_that_is_left_behind_fails_the_session(tmp_path: Path, command: str) -> None:
    left = f"import shlex, subprocess\ndef test_leaves():\n    subprocess.Popen(shlex.split({command!r}))\n"
    done = session(tmp_path, left)
    assert done.returncode == 1, done.stdout
    assert "processes were left behind" in done.stdout
