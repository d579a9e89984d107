"""The command line's first impression: help, version, usage errors, and what they cost."""

from __future__ import annotations

import importlib
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from regfs.cli.group import COMMANDS, LazyGroup, regfs
from tests.support.mounts import Home

DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"


def command(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


def section(name: str) -> str:
    """What docs/commands.md says of a command."""
    found = re.search(rf"^## regfs {re.escape(name)}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.M | re.S)
    assert found is not None, f"docs/commands.md has no section for {name}"
    return found[1]


def test_help_names_every_command_with_what_it_does(home: Home) -> None:
    done = home.regfs("--help", check=True)
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", done.stdout, re.M)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_how_it_is_used(name: str, home: Home) -> None:
    done = home.regfs(name, "--help", check=True)
    assert done.stdout.startswith(f"Usage: regfs {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    text = section(name)
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            missing = [spelling for spelling in parameter.opts if f"`{spelling}" not in text]
            assert not missing, f"regfs {name} {missing}"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_documented_that_does_not_exist(name: str) -> None:
    known = {spelling for parameter in command(name).params for spelling in parameter.opts}
    documented = set(re.findall(r"^- `(--?[a-z-]+)", section(name), re.M))
    assert documented <= known


def test_the_table_of_commands_is_what_the_group_offers() -> None:
    assert isinstance(regfs, LazyGroup)
    context = click.Context(regfs)
    assert regfs.list_commands(context) == list(COMMANDS)
    assert regfs.get_command(context, "no-such-command") is None


def test_help_is_as_fast_as_starting_python_and_a_little(home: Home) -> None:
    def median(*argv: str) -> float:
        times = []
        for _ in range(9):
            begin = time.perf_counter()
            subprocess.run([sys.executable, *argv], env=home.env, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    # Twice the ratio that the benchmark holds us to: a test machine is busy.
    assert median("-m", "regfs", "--help") < 12 * median("-c", "pass")


def test_completing_a_commands_name_imports_no_command(home: Home) -> None:
    home.variables |= {"_REGFS_COMPLETE": "bash_complete", "COMP_WORDS": "regfs lo", "COMP_CWORD": "1"}
    assert home.regfs(check=True).stdout.split() == ["plain,login", "plain,logout"]


def test_an_options_name_completes(home: Home) -> None:
    home.variables |= {
        "_REGFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "regfs login --pass",
        "COMP_CWORD": "2",
    }
    assert "plain,--password-stdin" in home.regfs(check=True).stdout.split()


def test_the_version_is_the_packages(home: Home) -> None:
    from regfs import __version__

    assert home.regfs("--version", check=True).stdout == f"regfs, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["cat"], ["ls", "--no-such-option"], ["status", "a", "b"]]
)
def test_a_wrong_command_line_is_exit_2_on_standard_error(arguments: list[str], home: Home) -> None:
    done = home.regfs(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: regfs" in done.stderr


@pytest.mark.parametrize(
    "words", [["--password", "hunter2hunter2"], ["--password=hunter2hunter2"], ["-p", "hunter2hunter2"]]
)
def test_a_password_on_the_command_line_is_refused_with_the_reason_and_not_repeated(
    words: list[str], home: Home
) -> None:
    done = home.regfs("login", *words, "localhost:5000")
    assert done.returncode == 2
    assert "--password-stdin" in done.stderr
    assert "can read a command line" in done.stderr
    assert "hunter2hunter2" not in done.stderr + done.stdout
