"""Deleting one tag of a GitLab registry by the API: never by digest, never in bulk."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

import trio

from regfs.digest import Digest
from regfs.errors import (
    AccessDenied,
    BadReply,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Moved,
    NotFound,
    NotSignedIn,
    Refused,
    RegfsError,
    ServerFailed,
)
from regfs.ports import Answer, Deletion
from regfs.providers.gitlab_api import Api, MissingScope, TagRule, decoded_list
from regfs.providers.gitlab_tokens import USE_INSTEAD, Kind
from regfs.reference import is_tag
from regfs.registry.replies import error_for, excerpt

if TYPE_CHECKING:
    from regfs.providers.gitlab_instance import Instance
    from regfs.providers.gitlab_names import Names, Place
    from regfs.providers.gitlab_tokens import Signer

SHIELDED: Final = 25.0
"""Seconds that a deletion, once it was sent, may go on after its caller has given up."""

_MOST_KEPT: Final = 4096
_WAY: Final = "GitLab's API"

logger = logging.getLogger(__name__)


class Looks(Protocol):
    """What a deletion asks of the Source that it is for."""

    async def tag_digest(self, repository: str, tag: str) -> Digest | None:
        """Where a tag leads; None: there is no such tag."""
        ...


class TagDeletions:
    """Deletes tags of one registry."""

    def __init__(
        self, registry: str, instance: Instance, signer: Signer, names: Names, source: Looks
    ) -> None:
        self._registry = registry
        self._instance = instance
        self._signer = signer
        self._names = names
        self._source = source
        self._worked: OrderedDict[str, None] = OrderedDict()

    def can_delete(self, repository: str | None) -> Answer:
        """YES once it worked in that repository, NO for a token that the API does not take, else UNKNOWN."""
        if self._signer.known in (Kind.DEPLOY, Kind.FOREIGN, Kind.NONE):
            return Answer.NO
        return Answer.YES if repository in self._worked else Answer.UNKNOWN

    async def delete_tag(self, repository: str, tag: str, seen: Digest | None) -> Deletion:
        """Delete one tag, as `regfs.ports.DeletesTags` says."""
        if not is_tag(tag):
            raise NotFound(f"{tag[:140]!r} cannot be a tag", registry=self._registry)
        await self._check_token()
        place, known = await self._names.find(repository)
        if seen is not None:
            await self._check_unmoved(repository, tag, seen)
        try:
            await self._delete(place, repository, tag)
        except _Stale:
            if not known:
                raise NotFound(f"there is no {repository}:{tag}", registry=self._registry) from None
            # A 404 says that nothing was done: the ids may be of before.
            place, _ = await self._names.find(repository, anew=True)
            try:
                await self._delete(place, repository, tag)
            except _Stale:
                raise NotFound(f"there is no {repository}:{tag}", registry=self._registry) from None
        self._worked[repository] = None
        if len(self._worked) > _MOST_KEPT:
            self._worked.popitem(last=False)
        return Deletion(_WAY)

    async def _check_token(self) -> None:
        kind = await self._signer.kind()
        if kind is Kind.NONE:
            raise NotSignedIn(
                f"{self._registry} lets nobody delete who is not signed in", registry=self._registry
            )
        if kind in (Kind.DEPLOY, Kind.FOREIGN):
            raise Forbidden(
                f"{self._signer.who} cannot delete: GitLab deletes a tag by its API, which does not take it. "
                f"Sign in with {USE_INSTEAD}",
                registry=self._registry,
            )

    async def _check_unmoved(self, repository: str, tag: str, seen: Digest) -> None:
        now = await self._source.tag_digest(repository, tag)
        if now is None:
            raise NotFound(f"there is no {repository}:{tag}", registry=self._registry)
        if now != seen:
            raise Moved(f"{repository}:{tag} leads to {now} by now, not to {seen}", registry=self._registry)

    async def _delete(self, place: Place, repository: str, tag: str) -> None:
        """Send it, and make sure: from then on a caller's giving up would leave unknown what became of the tag."""
        api = await self._instance.api()
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SHIELDED):
            try:
                await self._send(api, place, repository, tag)
            except (ConnectionFailed, ServerFailed, DeadlineExceeded) as error:
                if isinstance(error, ConnectionFailed) and not error.sent:
                    raise
                if not await self._is_surely_gone(repository, tag):
                    raise
                return
            await self._confirm(repository, tag)
            return
        raise DeadlineExceeded(
            f"the deletion of {repository}:{tag} did not end within {SHIELDED:g} seconds",
            registry=self._registry,
        )

    async def _send(self, api: Api, place: Place, repository: str, tag: str) -> None:
        target = f"projects/{place.project}/registry/repositories/{place.repository}/tags/{tag}"
        what = f"deleting {repository}:{tag}"
        try:
            reply = await api.request("DELETE", target, expect={200, 202, 204, 400}, what=what)
        except NotFound:
            raise _Stale from None
        except MissingScope:
            raise
        except Forbidden as error:
            raise await self._protected(api, place, repository, tag, error.words) from error
        if reply.status == 400:
            words = error_for(reply, self._registry).words
            raise Refused(
                f"GitLab could not delete {repository}:{tag}; its registry may be read-only, or failing",
                registry=self._registry,
                words=words,
            )

    async def _protected(self, api: Api, place: Place, repository: str, tag: str, words: str) -> RegfsError:
        """Why a tag may not be deleted. GitLab says 403 to the rule and to the role alike; who may read the rules sees them.

        A rule stands in the way of every tag of its project, whether or not its pattern matches
        (GitLab's merge request 183128), so no pattern is tried here.
        """
        rules = await self._rules(api, place)
        if not rules:
            return Forbidden(
                f"{self._signer.who} may not delete {repository}:{tag}: the tag is protected, or the role in the project "
                "is below Developer (GitLab does not say which)",
                registry=self._registry,
                words=words,
            )
        listed = "; ".join(map(_described, rules[:5]))
        return Refused(
            f"{repository}:{tag} is protected: the project's rules for tags are {listed}",
            registry=self._registry,
        )

    async def _rules(self, api: Api, place: Place) -> list[TagRule]:
        target = f"projects/{place.project}/registry/protection/tag/rules"
        try:
            reply = await api.request("GET", target, what="the rules that protect tags")
            return decoded_list(reply, TagRule, "the rules that protect tags")
        except (AccessDenied, NotFound, BadReply):
            return []  # maintainers alone may read them, and older GitLabs do not tell them by this API

    async def _confirm(self, repository: str, tag: str) -> None:
        try:
            gone = await self._is_gone(repository, tag)
        except RegfsError as error:
            logger.warning(
                "GitLab says that %s:%s is deleted; it could not be looked at: %s", repository, tag, error
            )
            return
        if not gone:
            raise BadReply(
                f"GitLab says that {repository}:{tag} is deleted, and it is still there",
                registry=self._registry,
            )

    async def _is_surely_gone(self, repository: str, tag: str) -> bool:
        """For an answer that got lost: what cannot be looked at counts as being there."""
        try:
            return await self._is_gone(repository, tag)
        except RegfsError:
            return False

    async def _is_gone(self, repository: str, tag: str) -> bool:
        return await self._source.tag_digest(repository, tag) is None


class _Stale(Exception):
    """The ids lead to nothing: there is no such tag there."""


def _described(rule: TagRule) -> str:
    role = excerpt(rule.minimum_access_level_for_delete or "")
    return f"{excerpt(rule.tag_name_pattern)!r} ({f'deleted by {role}s alone' if role else 'immutable'})"
