"""Deletes ``team/app:v1`` at a registry, and is killed at one point of it. A program of its own: see test_v2_deletion.py.

Arguments: the registry's address, the journal's folder, what to die at ("record", "erase", "PUT 1", "DELETE 3" …: the
n-th request of that method), and "before" or "after" it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import trio

from regfs.connection import Connection
from regfs.ports import DeletesTags, HttpPolicy
from regfs.registry.client import Client
from regfs.registry.journal import Entry, Journal
from regfs.registry.replies import Reply
from regfs.registry.v2 import V2Source

ADDRESS, FOLDER, POINT, WHEN = sys.argv[1:]


def die_at(point: str, when: str) -> None:
    """The end, if this is the time for it."""
    if (point, when) == (POINT, WHEN):
        os.kill(os.getpid(), signal.SIGKILL)


class MortalClient(Client):
    """A client whose process may be killed at a request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: Counter[str] = Counter()

    async def request(self, method: str, target: str, **more: Any) -> Reply:
        self.asked[method] += 1
        point = f"{method} {self.asked[method]}"
        die_at(point, "before")
        reply = await super().request(method, target, **more)
        die_at(point, "after")
        return reply


class MortalJournal(Journal):
    """A journal whose process may be killed at an entry."""

    def record(self, entry: Entry) -> None:
        die_at("record", "before")
        super().record(entry)
        die_at("record", "after")

    def erase(self, entry: Entry) -> None:
        die_at("erase", "before")
        super().erase(entry)
        die_at("erase", "after")


async def main() -> None:
    client = MortalClient(Connection("r", f"http://{ADDRESS}"), HttpPolicy("regfs-test/1"), None)
    source = V2Source(ADDRESS, client, MortalJournal(Path(FOLDER)))
    deletion = source.capability(DeletesTags, "team/app")
    assert deletion is not None
    await deletion.delete_tag("team/app", "v1", None)


trio.run(main)
