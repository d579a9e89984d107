"""The process behind a mount, and the pipe between it and the command that the user started.

It is forked at the very start, before trio runs or a thread lives, and imports what it needs while the command still reads
its settings: on two processors a mount is up a third sooner. What it has to say until the mount is usable, it says
through a pipe; the command prints it and exits.
"""

from __future__ import annotations

# The less is imported before the fork, the sooner the daemon begins: the rest is imported where it is used.
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

from regfs import errors
from regfs.errors import MountError, RegfsError

if TYPE_CHECKING:
    from regfs.mount import Plan

Say = Callable[[str], None]


class Told:
    """Whoever waits for the mount: hears lines, then that it is usable."""

    def __init__(self, say: Say) -> None:
        self.say = say
        """Takes a line that the user should know, and that stops nothing."""

    def ready(self) -> None:
        """The mount is usable."""


class Daemon:
    """The command's end: a process that waits for its plan."""

    def __init__(self, pid: int, plans: IO[bytes], answers: IO[str]) -> None:
        self._pid = pid
        self._plans = plans
        self._answers = answers

    def mount(self, plan: Plan, say: Say) -> None:
        """Hand over the plan, and return when the mount is usable. Raises what the daemon failed by."""
        import json
        import pickle

        with contextlib.suppress(BrokenPipeError), self._plans:  # a daemon that died has said why
            pickle.dump(plan, self._plans)
        for line in self._answers:
            message: dict[str, str] = json.loads(line)
            if "ready" in message:
                _look_into(plan.directory)
                return
            if "failure" in message:
                raise _rebuilt(message)
            say(message["warning"])
        raise MountError(
            f"the daemon for {plan.directory} died before the mount was usable: `regfs mount -f -v …` shows why"
        )

    def dismiss(self) -> None:
        """End it: at once if it has no plan yet; else it unmounts first."""
        number = signal.SIGTERM if self._plans.closed else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, number)
            os.waitpid(self._pid, 0)

    def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(BrokenPipeError):
            self._plans.close()
        self._answers.close()


@contextmanager
def forked() -> Iterator[Daemon]:
    """A daemon for the length of a block. It outlives the block only where that ends without an error."""
    sys.stdout.flush()
    sys.stderr.flush()
    plan_read, plan_write = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(plan_write)
        os.close(answer_read)
        _live(os.fdopen(plan_read, "rb"), _Pipe(os.fdopen(answer_write, "w", encoding="utf-8")))
    os.close(plan_read)
    os.close(answer_write)
    daemon = Daemon(pid, os.fdopen(plan_write, "wb"), os.fdopen(answer_read, encoding="utf-8"))
    try:
        yield daemon
    except BaseException:
        daemon.dismiss()
        raise
    finally:
        daemon.close()


def _look_into(directory: Path) -> None:
    """Read a file of the mount's own: usable is what somebody has used.

    The kernel learns from the first file that is closed that nothing need be told of it, so that the user's first one
    costs a wake-up less.
    """
    with contextlib.suppress(OSError):
        (directory / ".regfs" / "README").read_bytes()


def _rebuilt(message: dict[str, str]) -> RegfsError:
    """The daemon's error, so that the advice on it is the right one."""
    kind = getattr(errors, message["kind"], MountError)
    if kind is errors.DeletionDisabled:  # takes more than a message, and is none of a mount's
        kind = MountError
    error: RegfsError = kind(message["failure"], registry=message["registry"], words=message["words"])
    return error


# ── the daemon's end ──


_GARBAGE: Final = 20_000
"""Objects after which to look for garbage. Python's 700 are one `cat`, of which looking would be a tenth."""


class _Pipe(Told):
    """The command, through a pipe: a JSON object a line."""

    def __init__(self, pipe: IO[str]) -> None:
        super().__init__(lambda text: self.send(warning=text))
        self._pipe = pipe

    def send(self, **message: str) -> None:
        """Send one message; a command that has gone away hears nothing."""
        import json

        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(json.dumps(message) + "\n")
            self._pipe.flush()

    def ready(self) -> None:
        """Let the command go, and leave its terminal."""
        self.send(ready="yes")
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        gc.enable()
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        _leave_stdio((0, 1, 2))


def _live(plans: IO[bytes], told: _Pipe) -> NoReturn:
    """The child's whole life. It ends without the command's exit handlers and buffers."""
    import logging

    status = 1
    try:
        os.setsid()
        gc.disable()  # until the mount is up: modules being imported are no garbage, and looking costs a twentieth
        _leave_stdio((0,))
        _import_ahead()
        plan = _received(plans)
        status = 0 if plan is None else _serve(plan, told)
    except ImportError as error:
        told.send(failure=f"{error}; {_LIBRARY}", kind="MountError", registry="", words="")
    except BaseException as error:
        logging.getLogger(__name__).critical("the daemon ends", exc_info=error)
        told.send(failure=f"{type(error).__name__}: {error}", kind="MountError", registry="", words="")
    finally:
        logging.shutdown()
        os._exit(status)


_LIBRARY = (
    "if it is libfuse3 that lacks: `sudo apt install libfuse3-3` (Debian, Ubuntu), `sudo dnf install fuse3-libs` (Fedora); "
    "else install regfs again with pip"
)


def _import_ahead() -> None:
    """What every mount needs; what only some need waits for the plan."""
    import regfs.app
    import regfs.fuse.session  # noqa: F401 - the import is what is wanted


def _received(plans: IO[bytes]) -> Plan | None:
    """The plan; None where the command ended without one."""
    import pickle

    with plans:
        try:
            plan: Plan = pickle.load(plans)  # noqa: S301 - from our own parent, through a pipe of its making
        except EOFError:
            return None
    return plan


def _serve(plan: Plan, told: _Pipe) -> int:
    import logging

    from regfs.log import set_up
    from regfs.mount import serve

    try:
        os.chdir("/")
        set_up(plan.settings.verbose, plan.settings.log_file, daemon=True, deletions=True)
        serve(plan, told)
    except RegfsError as error:
        logging.getLogger(__name__).info("ends: %s", error)
        told.send(
            failure=error.message, kind=type(error).__name__, registry=error.registry, words=error.words
        )
        return 1
    return 0


def _leave_stdio(descriptors: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)
