"""The life of a mount's daemon: checks, fork, mount, readiness told to whoever waits, signals, unmount.

The daemon is forked before trio runs or a thread starts. What it has to say until the mount is usable, it says
through a pipe to the command that the user started, which prints it and exits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from regfs import errors
from regfs.config import Settings
from regfs.connection import Connection
from regfs.errors import MountError, RegfsError
from regfs.log import set_up
from regfs.mountpoint import check_machine, prepare
from regfs.notify import notify

if TYPE_CHECKING:
    import trio

    from regfs.app import App
    from regfs.fuse.session import Session

log = logging.getLogger(__name__)

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_ENDING, signal.SIGHUP)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be mounted: ``single`` shows the one connection as the root, otherwise each has a folder."""

    settings: Settings
    connections: Sequence[Connection]
    single: bool
    directory: Path

    @property
    def address(self) -> str:
        """What the mount table shows behind ``regfs#``; empty for several registries."""
        return self.connections[0].address if self.single else ""


def mount(
    settings: Settings,
    connections: Sequence[Connection],
    *,
    single: bool,
    directory: Path,
    foreground: bool = False,
    say: Say,
) -> None:
    """Mount, and return when the mount is usable; with ``foreground``, when it is unmounted again.

    ``say`` takes each line for the user. Raises MountError, and what kept the registry from being opened.
    """
    check_machine(settings)
    directory, done = prepare(directory)
    for line in done:
        say(line)
    plan = Plan(settings, connections, single, directory)
    if foreground:
        set_up(settings.verbose, settings.log_file)
        _serve(plan, _Told(say))
    else:
        _in_background(plan, say)


# ── between the command and its daemon ──


class _Told:
    """Whoever waits for the mount: hears lines, then that it is usable."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def warn(self, text: str) -> None:
        """Something that the user should know, and that stops nothing."""
        self._say(text)

    def ready(self) -> None:
        """The mount is usable."""


class _Pipe(_Told):
    """The same through a pipe, a JSON object a line."""

    def __init__(self, pipe: IO[str]) -> None:
        super().__init__(lambda text: self.send(warning=text))
        self._pipe = pipe

    def send(self, **message: str) -> None:
        """Send one message; a command that has gone away hears nothing."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(json.dumps(message) + "\n")
            self._pipe.flush()

    def ready(self) -> None:
        """Let the command go, and leave its terminal."""
        self.send(ready="yes")
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        _leave_stdio((0, 1, 2))


def _in_background(plan: Plan, say: Say) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _daemon(plan, os.fdopen(write, "w", encoding="utf-8"))
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        _listen(pipe, say, plan.directory)


def _listen(pipe: Iterable[str], say: Say, directory: Path) -> None:
    """Pass on what the daemon says until the mount is usable. Raises what it failed by."""
    for line in pipe:
        message: dict[str, str] = json.loads(line)
        if "ready" in message:
            return
        if "failure" in message:
            raise _rebuilt(message)
        say(message["warning"])
    raise MountError(
        f"the daemon for {directory} died before the mount was usable: `regfs mount -f -v …` shows why"
    )


def _rebuilt(message: dict[str, str]) -> RegfsError:
    """The daemon's error, so that the advice on it is the right one."""
    kind = getattr(errors, message["kind"], RegfsError)
    if kind is errors.DeletionDisabled:  # takes more than a message, and is none of a mount's
        kind = errors.Refused
    error: RegfsError = kind(message["failure"], registry=message["registry"], words=message["words"])
    return error


def _daemon(plan: Plan, pipe: IO[str]) -> NoReturn:
    """The child's whole life. Ends without the parent's exit handlers and buffers."""
    told = _Pipe(pipe)
    status = 1
    try:
        os.setsid()
        os.chdir("/")
        _leave_stdio((0,))
        set_up(plan.settings.verbose, plan.settings.log_file, daemon=True)
        _serve(plan, told)
        status = 0
    except RegfsError as error:
        log.info("ends: %s", error)
        told.send(
            failure=error.message, kind=type(error).__name__, registry=error.registry, words=error.words
        )
    except BaseException as error:
        log.critical("ends", exc_info=error)
        told.send(failure=f"{type(error).__name__}: {error}", kind="MountError", registry="", words="")
    finally:
        logging.shutdown()
        os._exit(status)


def _leave_stdio(descriptors: Sequence[int]) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


# ── serving ──


def _serve(plan: Plan, told: _Told) -> None:
    """Mount, serve until the mount is taken away or a signal ends it, unmount."""
    with _signals_wait():
        # Imported here: a command that fails its checks has no use for them.
        import trio

        from regfs.app import App
        from regfs.fuse.operations import Ownership, RegfsOperations
        from regfs.fuse.session import Session, mount_options

        settings = plan.settings
        settle = settings.rw or settings.allow_other
        app = App(settings, plan.connections, single=plan.single, settle_at_lookup=settle)
        owner = Ownership(
            os.getuid() if settings.uid is None else settings.uid,
            os.getgid() if settings.gid is None else settings.gid,
            settings.umask or 0,
        )
        options = mount_options(plan.address, writable=settings.rw, allow_other=settings.allow_other)
        session = Session(RegfsOperations(app.filesystem, owner), plan.directory, options)
        session.open()
        app.filesystem.invalidate = session.invalidate
        try:
            with _first_failure():
                trio.run(_live, app, session, plan, told)
        finally:
            session.close()


async def _live(app: App, session: Session, plan: Plan, told: _Told) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        await nursery.start(app.serve)
        await nursery.start(_obey_signals, app, session, nursery)
        nursery.start_soon(_answer_until_unmounted, session, nursery)
        for warning in await app.first_check():
            log.warning("%s", warning)
            told.warn(warning)
        log.info("%s is mounted on %s", plan.address or "every registry", plan.directory)
        told.ready()
        notify("READY=1", f"STATUS={plan.address or 'your registries'} on {plan.directory}")
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        await app.aclose()


async def _answer_until_unmounted(session: Session, nursery: trio.Nursery) -> None:
    await session.serve()
    log.info("unmounted")
    nursery.cancel_scope.cancel()


async def _obey_signals(
    app: App, session: Session, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None]
) -> None:
    import trio

    with trio.open_signal_receiver(*_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        task_status.started()
        async for number in signals:
            if number in _ENDING:
                log.info("ends by %s", signal.Signals(number).name)
                notify("STOPPING=1")
                await session.stop(nursery.cancel_scope)
                return
            await app.forget_listings()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold signals back until there is somebody to obey them: one that ends us between would leave a dead mount."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _first_failure() -> Iterator[None]:
    """Take one error out of the groups that nurseries put it in."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            known: Any = error.subgroup(RegfsError) or error
            error = known.exceptions[0]
        raise error from group
