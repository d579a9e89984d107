"""Deleting one tag of Docker Hub, by the Hub API alone: the registry deletes nothing."""

from __future__ import annotations

from typing import Final, Protocol

import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Moved,
    NotFound,
    NotSignedIn,
    Refused,
    ServerFailed,
)
from regfs.manifest import Descriptor
from regfs.ports import Answer, Deletion
from regfs.providers.dockerhub import NAME, of_the_hub
from regfs.providers.dockerhub_api import HubApi

SHIELDED: Final = 25.0
"""Seconds that a deletion, once it has been sent, may go on after its caller has given up."""

CONFIRMED_AFTER: Final = (0.0, 0.5, 1.5)
"""Seconds to wait before each look whether a tag is gone."""

_LOST: Final = (ConnectionFailed, DeadlineExceeded, ServerFailed)
"""What leaves it open whether a deletion was carried out."""


class Looks(Protocol):
    """What a deletion asks of the Source that it is for."""

    async def canonical(self, repository: str) -> str:
        """``NAMESPACE/NAME`` of a repository, however it was called. Raises NotFound."""
        ...

    async def resolve(self, repository: str, tag: str) -> Descriptor:
        """See `regfs.ports.ResolvesTags.resolve`."""
        ...


class TagDeletions:
    """Deletes tags of Docker Hub with one connection's sign-in."""

    def __init__(self, connection: Connection, api: HubApi, source: Looks) -> None:
        self._connection = connection
        self._api = api
        self._source = source
        self._worked: set[str] = set()

    def can_delete(self, repository: str | None) -> Answer:
        """YES once it worked there; NO for who signs in as nobody; else only the API can say."""
        if self._connection.auth == "anonymous":
            return Answer.NO
        return Answer.YES if repository in self._worked else Answer.UNKNOWN

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """See `regfs.ports.DeletesTags.delete_tag`: only once the tag is what the user saw."""
        with of_the_hub():
            full = await self._source.canonical(repository)
            if await self._api.credential() is None:
                raise NotSignedIn(f"{NAME} deletes nothing without a sign-in", registry=NAME)
            now = (await self._source.resolve(full, tag)).digest
            if seen is not None and now != seen:
                raise Moved(f"{full}:{tag} is {now} by now, not {seen}", registry=NAME)
            await trio.lowlevel.checkpoint_if_cancelled()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHIELDED):
                await self._delete(full, tag)
                self._worked.add(repository)
                return Deletion("the Hub API's tag deletion")
        raise DeadlineExceeded(f"the deletion did not end within {SHIELDED:g} seconds", registry=NAME)

    async def _delete(self, repository: str, tag: str) -> None:
        try:
            await self._api.delete_tag(repository, tag)
        except _LOST as error:
            if not await self._is_gone(repository, tag):
                raise error from None
            return
        except NotSignedIn as error:
            raise self._unsigned(error) from error
        except NotFound as error:
            # The registry had it a moment ago, so it is the API that does not show it to this sign-in.
            raise Forbidden(error.message, registry=NAME, words=error.words) from error
        if not await self._is_gone(repository, tag):
            raise Refused(
                f"the Hub API said that it had deleted {repository}:{tag}, and still has it", registry=NAME
            )

    def _unsigned(self, error: NotSignedIn) -> NotSignedIn:
        reason = self._api.refused
        if reason is None:
            return error
        return NotSignedIn(
            f"deleting needs the Hub API, which does not take this sign-in: {reason.message}; where it has a second "
            "factor, use a personal access token",
            registry=NAME,
            words=reason.words,
        )

    async def _is_gone(self, repository: str, tag: str) -> bool:
        for pause in CONFIRMED_AFTER:
            await trio.sleep(pause)
            if not await self._api.has_tag(repository, tag):
                return True
        return False
