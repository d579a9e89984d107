"""Which credential signs a request, and what was got with it: a registry may have several, for parts of it."""

from __future__ import annotations

from regfs.auth.accounts import Accounts
from regfs.auth.credentials import Holder
from regfs.auth.needs import Lessons
from regfs.auth.tokencache import TokenCache
from regfs.auth.tokens import Ask


class Desk:
    """What all requests share that one credential signs. ``lessons`` are the whole registry's: they hold no secret."""

    def __init__(self, registry: str, holder: Holder, lessons: Lessons) -> None:
        self.registry = registry
        self.holder = holder
        self.lessons = lessons
        self.tokens = TokenCache()
        self._refresh: dict[tuple[int, str, str], str] = {}

    def forget(self) -> None:
        """Drop what was got with credentials. What the registry asks for is no secret and stays."""
        self.tokens.clear()
        self._refresh.clear()

    def refresh_token(self, generation: int, ask: Ask) -> str:
        """The refresh token that an earlier reply gave, or nothing."""
        return self._refresh.get((generation, ask.realm, ask.service), "")

    def keep_refresh(self, generation: int, ask: Ask, refresh: str) -> None:
        """Remember a grant's refresh token; one that came to nothing shows that the endpoint does not take them."""
        place = (generation, ask.realm, ask.service)
        if place in self._refresh and not (self._refresh[place] and refresh):
            self._refresh[place] = ""
        elif refresh:
            self._refresh[place] = refresh


class Desks:
    """The desks of one connection: one for each part of the registry that has a credential of its own, one for the rest."""

    def __init__(self, registry: str, base: str, accounts: Accounts) -> None:
        """``base`` is the path that the registry's API is under."""
        self.base = base
        self.token_requests = 0
        self._registry = registry
        self._accounts = accounts
        self._lessons = Lessons()
        self._desks: dict[Holder, Desk] = {}

    def known(self, repository: str) -> Desk:
        """The desk for a repository, by what is known by now."""
        return self._of(self._accounts.known(repository))

    async def at(self, repository: str) -> Desk:
        """The desk for a repository (empty: for the registry as a whole)."""
        return self._of(await self._accounts.at(repository))

    def forget(self) -> None:
        """Drop what was got with credentials. What the registry asks for is no secret and stays."""
        for desk in self._desks.values():
            desk.forget()
        self._desks.clear()

    def _of(self, holder: Holder) -> Desk:
        if holder not in self._desks:
            self._desks[holder] = Desk(self._registry, holder, self._lessons)
        return self._desks[holder]
