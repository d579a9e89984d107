"""What an earlier daemon left half done: where its journals are, finishing or undoing it, saying so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

from regfs.connection import Connection
from regfs.ports import Recovers, Source

log = logging.getLogger(__name__)


def state_folder(connection: Connection) -> Path:
    """Where the connection's journals are: below ``$XDG_STATE_HOME``, as the base directory specification says."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return home / "regfs" / connection.name


class Recovery:
    """Finishes or undoes, once, what an earlier daemon left half done in one registry."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = trio.Lock()
        self._done = False

    async def ensure(self) -> None:
        """Return once it is through. Raises what the registry raises; the next caller then tries again."""
        async with self._lock:
            if self._done:
                return
            recovers = self._source.capability(Recovers)
            for line in await recovers.recover() if recovers is not None else ():
                log.warning("%s: %s", self._source.name, line)
            self._done = True


def left_behind(connection: Connection) -> list[str]:
    """What a read-only mount says of deletions that were broken off: it can't finish them, since it sends nothing."""
    try:
        entries = [path for path in state_folder(connection).iterdir() if path.suffix == ".deletion"]
    except OSError:
        return []
    if not entries:
        return []
    return [
        f"a deletion in {connection.address} was broken off; a mount of it with --rw finishes or undoes it"
    ]
