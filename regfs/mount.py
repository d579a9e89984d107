"""The life of a mount: checks, mount, readiness told to whoever waits, signals, unmount."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regfs.config import Settings
from regfs.connection import Connection
from regfs.daemon import Daemon, Say, Told
from regfs.errors import CredentialError, RegfsError
from regfs.notify import notify

if TYPE_CHECKING:
    import trio

    from regfs.app import App
    from regfs.fuse.session import Session

log = logging.getLogger(__name__)

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_SIGNALS: Final = (*_ENDING, signal.SIGHUP)


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
    daemon: Daemon | None,
    say: Say,
) -> None:
    """Mount by ``daemon``, and return when the mount is usable; without one, here, and return when it is unmounted.

    ``say`` takes each line for the user. Raises MountError, and what kept the registry from being opened.
    """
    from regfs.mountpoint import check_machine, prepare

    check_machine(settings)
    directory, done = prepare(directory)
    for line in done:
        say(line)
    plan = Plan(settings, connections, single, directory)
    if daemon is not None:
        daemon.mount(plan, say)
        return
    from regfs.log import set_up

    set_up(settings.verbose, settings.log_file, deletions=True)
    serve(plan, Told(say))


def serve(plan: Plan, told: Told) -> None:
    """Mount, serve until the mount is taken away or a signal ends it, unmount. Raises what kept it from coming up."""
    with _signals_wait():
        # Imported here: a command that fails its checks has no use for them.
        import trio

        from regfs.app import App
        from regfs.fuse.direct import DirectAnswers
        from regfs.fuse.operations import Ownership, RegfsOperations
        from regfs.fuse.session import Session, mount_options

        settings = plan.settings
        settle = settings.rw or settings.allow_other
        app = App(settings, plan.connections, single=plan.single, settle_at_lookup=settle)
        owner = Ownership(
            os.getuid() if settings.uid is None else settings.uid,
            os.getgid() if settings.gid is None else settings.gid,
            settings.umask or 0,
            shared=settings.allow_other_write,
        )
        options = mount_options(plan.address, writable=settings.rw, allow_other=settings.allow_other)
        operations = RegfsOperations(app.filesystem, owner)
        session = Session(operations, plan.directory, options, DirectAnswers(app.filesystem, operations))
        session.open()
        app.filesystem.invalidate = session.invalidate
        try:
            with _first_failure():
                trio.run(_live, app, session, plan, told)
        finally:
            session.close()


async def _live(app: App, session: Session, plan: Plan, told: Told) -> None:
    import trio

    async with trio.open_nursery() as nursery:
        await nursery.start(app.serve)
        await nursery.start(_obey_signals, app, session, nursery)
        nursery.start_soon(_answer_until_unmounted, session, nursery)
        warnings = await app.first_check()
        for warning in [*warnings, *await _trouble_of_file(plan, warnings)]:
            told.say(warning)
        log.info("%s is mounted on %s", plan.address or "every registry", plan.directory)
        told.ready()
        notify("READY=1", f"STATUS={plan.address or 'your registries'} on {plan.directory}")
    with trio.CancelScope(shield=True), trio.move_on_after(1):
        await app.aclose()


async def _trouble_of_file(plan: Plan, warnings: Sequence[str]) -> Sequence[str]:
    """What is wrong with the file of credentials, unless the ``warnings`` say it: no registry may want them yet."""
    from regfs.auth.sources.file import FileSource

    file = plan.settings.credentials
    if file is None:
        return ()
    try:
        for connection in plan.connections:
            await FileSource(file, single=plan.single).get(connection)
    except CredentialError as error:
        log.warning("the file of credentials is of no use: %s", error)
        said = any(str(error) in warning for warning in warnings)
        return () if said else [f"the file of credentials is of no use: {error}"]
    return ()


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
