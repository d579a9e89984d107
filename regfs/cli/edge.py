"""Where every command ends: one place that turns what went wrong into text, advice and an exit code.

Exit codes: 0 all done, 1 something failed (said on standard error), 2 the command line itself is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Final

import click

from regfs.cli.output import OutputFailed, ReaderGone, emit
from regfs.errors import RegfsError

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class Advised(RegfsError):
    """A failure of a command's own, which knows better than `regfs.advice` what to do next."""

    def __init__(self, message: str, advice: str = "", *, registry: str = "") -> None:
        super().__init__(message, registry=registry)
        self.advice = advice


def run(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` name and return its exit code; a signal's end is the process's own."""
    try:
        return _run(arguments)
    except ReaderGone:
        return _end_as_the_signal_would(signal.SIGPIPE)
    except OutputFailed as error:
        say(f"regfs: standard output: {error}")
        _drop_output()
        return FAILED


def _run(arguments: Sequence[str]) -> int:
    try:
        result = _call(arguments)
        emit(b"")
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as abort:
        return _interrupted(has_new_line=isinstance(abort.__cause__, KeyboardInterrupt))
    except KeyboardInterrupt:
        return _interrupted()
    except (ReaderGone, OutputFailed):
        raise
    except (Exception, BaseExceptionGroup) as error:  # the edge: nothing may pass it
        return _failed(error, arguments)
    return result if isinstance(result, int) else OK


def _call(arguments: Sequence[str]) -> object:
    from regfs.cli.group import COMMANDS, regfs

    if arguments and arguments[0] not in COMMANDS and not arguments[0].startswith("-"):
        # mount(8) knows no command of ours: it runs `regfs SOURCE DIR -o OPTIONS` for the type fuse.regfs.
        from regfs.cli.mount import HELPER, helper_arguments, mount

        spelled = helper_arguments(arguments)
        if spelled is not None:
            return mount.main(spelled, prog_name=HELPER, standalone_mode=False)
    return regfs.main(list(arguments), prog_name="regfs", standalone_mode=False)


def _failed(error: BaseException, arguments: Sequence[str]) -> int:
    cause = leaf(error)
    if isinstance(cause, KeyboardInterrupt):
        return _interrupted()
    if isinstance(cause, ReaderGone | OutputFailed):
        raise cause
    if isinstance(cause, BrokenPipeError):
        raise ReaderGone from error
    if isinstance(cause, click.ClickException):
        cause.show()
        return cause.exit_code
    complain(cause)
    if is_verbose(arguments) and not isinstance(cause, RegfsError):
        say(_traceback(error))
    return FAILED


def leaf(error: BaseException) -> BaseException:
    """What really went wrong: the one error inside nested groups; of several Ctrl-C before others, then the first."""
    if isinstance(error, BaseExceptionGroup):
        error = error.subgroup(KeyboardInterrupt) or error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def complain(error: BaseException, path: str = "") -> None:
    """Say on standard error what failed (``regfs: PATH: reason``) and, on the next line, what to do about it."""
    say(f"regfs: {path}: {reason(error, path)}" if path else f"regfs: {reason(error)}")
    if next_step := _next_step(error):
        say(f"  {next_step}")


def reason(error: BaseException, path: str = "") -> str:
    """What went wrong, in one line. For a path the words come first that `ls` and `cat` on a mount would use."""
    if not isinstance(error, RegfsError):
        return f"unexpected failure: {type(error).__name__}: {error}".rstrip(": ")
    if not path:
        return str(error)
    from regfs.errors import ConfigError, FileError, MountError, NotFound, PluginError
    from regfs.fuse.errnos import errno_of

    if isinstance(error, Advised | ConfigError | MountError | PluginError):
        return str(error)
    words = os.strerror(errno_of(error))
    return words if isinstance(error, FileError | NotFound) else f"{words}: {error}"


def _next_step(error: BaseException) -> str:
    if not isinstance(error, RegfsError):
        return "this is a fault of regfs; `regfs -v …` shows where it happened"
    if isinstance(error, Advised):
        return error.advice
    from regfs.advice import advice

    return advice(error)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error)).rstrip()


def is_verbose(arguments: Sequence[str]) -> bool:
    """Whether ``-v`` is among the arguments: read from them, since a failure may come before they are parsed."""
    import re

    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(word == "--verbose" or re.fullmatch(r"-v+", word) for word in before)


def say(text: str) -> None:
    """Write text for a person to standard error: redacted, and without control characters that steer a terminal."""
    from regfs.log import redact

    click.echo(printable(redact(text)), err=True)


def printable(text: str) -> str:
    """``text`` with everything but newlines, tabs and printable characters escaped: a registry's words may be hostile."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def _drop_output() -> None:
    """Point standard output at /dev/null, so that the interpreter's last flush does not fail a second time."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _interrupted(*, has_new_line: bool = False) -> int:
    """End behind the ``^C`` that the terminal shows; ``has_new_line``: click has ended that line."""
    if not has_new_line:
        click.echo(err=True)
    return _end_as_the_signal_would(signal.SIGINT)


def _end_as_the_signal_would(number: signal.Signals) -> int:
    """Die by the signal, as `cat` does: a shell then knows why, and stops its loop on Ctrl-C."""
    _drop_output()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
