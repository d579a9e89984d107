"""Where every command ends: texts, advice, exit codes, and what never leaves."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs import errors
from regfs.cli import edge
from regfs.cli.output import table

SCRIPT = """
import sys
import click
from regfs import errors
from regfs.cli import edge, group
{setup}
@click.command()
def planted():
    {body}
group.regfs.get_command = lambda context, name: planted
sys.exit(edge.run({arguments!r}))
"""


def run(
    body: str, *arguments: str, setup: str = "", stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a planted command in a process of its own, through the edge."""
    script = SCRIPT.format(body=body, setup=setup, arguments=[*arguments, "planted"])
    return subprocess.run(
        [sys.executable, "-c", script], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_a_failure_is_its_fact_and_on_the_next_line_what_to_do() -> None:
    done = run("raise errors.NotSignedIn('nobody is signed in', registry='localhost:5000')")
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "regfs: nobody is signed in"
    assert second.startswith("  Run `regfs login localhost:5000`")


def test_a_failure_inside_nurseries_is_told_as_itself() -> None:
    done = run(
        "raise ExceptionGroup('', [ExceptionGroup('', [errors.UnknownHost('no such host', registry='x')])])"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("regfs: no such host\n")


def test_an_unexpected_exception_is_one_line_and_where_to_look() -> None:
    done = run("raise ValueError('a fault')")
    assert done.returncode == 1
    assert done.stderr.startswith("regfs: unexpected failure: ValueError: a fault\n")
    assert "regfs -v" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_v_an_unexpected_exception_shows_where_without_its_secrets() -> None:
    done = run("raise ValueError('Authorization: Bearer abcdefghijklmnopqrstuvwxyz')", "-v")
    assert "Traceback (most recent call last)" in done.stderr
    assert "abcdefghijklmnopqrstuvwxyz" not in done.stderr


def test_a_broken_config_names_every_mistake() -> None:
    done = run("raise errors.ConfigError('a.toml:1: ttl: bad\\na.toml:2: rw: bad')")
    assert "a.toml:1: ttl: bad\na.toml:2: rw: bad" in done.stderr


@pytest.mark.parametrize(
    "raised", ["KeyboardInterrupt()", "BaseExceptionGroup('', [ValueError(), KeyboardInterrupt()])"]
)
def test_an_interrupt_ends_the_process_as_the_signal_does(raised: str) -> None:
    done = run(f"raise {raised}")
    assert done.returncode == -signal.SIGINT
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_ends_it_quietly_as_cat_ends() -> None:
    script = SCRIPT.format(
        body="[output.emit(b'x' * 65536) for _ in range(100)]",
        setup="from regfs.cli import output",
        arguments=["planted"],
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == -signal.SIGPIPE
    process.stderr.close()


def test_a_full_disk_is_said_and_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = run("output.line('hello')", setup="from regfs.cli import output", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == "regfs: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.NotFound("no tag v9"), "No such file or directory"),
        (errors.IsADirectory("a folder"), "Is a directory"),
        (errors.ListingRefused("may not be listed"), "Permission denied: may not be listed"),
        (errors.DeadlineExceeded("no answer in 30 s"), "Connection timed out: no answer in 30 s"),
        (errors.DigestMismatch("wrong bytes"), "Bad message: wrong bytes"),
    ],
)
def test_a_paths_failure_has_the_words_that_ls_and_cat_use(error: errors.RegfsError, words: str) -> None:
    assert edge.reason(error, "some/path") == words


@given(st.text())
def test_nothing_that_steers_a_terminal_is_printed(text: str) -> None:
    shown = edge.printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("arguments", "verbose"),
    [
        (["-v", "ls"], True),
        (["-vv", "ls"], True),
        (["ls", "--verbose"], True),
        (["ls", "--", "-v"], False),
        (["ls", "v", "-l"], False),
    ],
)
def test_v_is_found_wherever_it_stands(arguments: list[str], verbose: bool) -> None:
    assert edge.is_verbose(arguments) is verbose


def test_a_table_has_aligned_columns_and_no_blanks_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, write_through=True))
    table(("A", "LONGER"), [("wide cell", "x"), ("", "")])
    assert written.getvalue() == b"A          LONGER\nwide cell  x\n\n"
