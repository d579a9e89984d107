"""The credentials of one connection: one for the registry, and those of namespaces and repositories in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import trio

from regfs.auth.credentials import Holder
from regfs.connection import Connection
from regfs.ports import Keychain, KnowsParts

LEARN_AGAIN: Final = 60.0
"""Seconds after which the keychain is asked anew which parts of a registry have credentials of their own."""
MAX_PARTS: Final = 4096


class Accounts:
    """A holder for each part that has a credential of its own. The parts are learned once for all who ask, and now and again."""

    def __init__(self, connection: Connection, keychain: Keychain) -> None:
        self._connection = connection
        self._keychain = keychain
        self._knower = keychain if isinstance(keychain, KnowsParts) else None
        self._lock = trio.Lock()
        self._learned: float | None = None
        self._parts: dict[str, Holder] = {}
        self.whole = Holder(connection, keychain)
        """Of the registry as a whole, and of all that has none of its own."""

    def known(self, repository: str) -> Holder:
        """The holder of the longest part that leads to ``repository``, by what is known by now."""
        part = repository
        while part and self._parts:
            if part in self._parts:
                return self._parts[part]
            part = part.rpartition("/")[0]
        return self.whole

    async def at(self, repository: str) -> Holder:
        """The holder for ``repository``; empty: for the registry as a whole."""
        if repository and self._knower is not None and self._is_old():
            async with self._lock:
                if self._is_old():
                    self._take(await self._knower.parts(self._connection))
        return self.known(repository)

    def forget(self) -> None:
        """Drop everything: the next who needs a credential asks the keychain."""
        self._learned = None
        self._parts.clear()
        self.whole.forget()

    def _is_old(self) -> bool:
        return self._learned is None or trio.current_time() - self._learned >= LEARN_AGAIN

    def _take(self, parts: Iterable[str]) -> None:
        self._learned = trio.current_time()
        self._parts = {
            part: self._parts.get(part) or Holder(replace(self._connection, part=part), self._keychain)
            for part in list(parts)[:MAX_PARTS]
        }
