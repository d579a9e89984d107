"""Deleting one tag on GitHub's registry, whose API deletes versions: a digest with all the tags that it has.

So the tag gets a throw-away (`regfs.registry.throwaway`), and the throw-away's version is what is deleted, if it bears
that tag and no other. The package itself is never deleted, nor the version of anything that somebody pushed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, cast

import trio

from regfs.digest import Digest
from regfs.errors import BadReply, Forbidden, NotFound, Refused, RegfsError
from regfs.providers.ghcr_api import FINE_GRAINED, Api, Version, Versions

NEEDED: Final = frozenset({"write:packages", "delete:packages"})
_LOOKS: Final = (0.0, 0.25, 0.75, 1.5)
"""Seconds before each look: the API may learn of a push, and the registry of a deletion, a moment later."""


class VersionDeletion:
    """`regfs.registry.deleter.DeletesDigests` by GitHub's API; ``digest_of`` is the registry's word on a tag."""

    def __init__(self, registry: str, api: Api, digest_of: Callable[[str, str], Awaitable[Digest]]) -> None:
        self._registry = registry
        self._api = api
        self._digest_of = digest_of

    async def probe(self, repository: str, tag: str) -> None:
        """See whether the token may write and delete, and whether the package keeps a tag besides this one."""
        try:
            newest = await self._api.first_versions(repository)
        except NotFound as error:
            raise Forbidden(
                f"{self._named(repository, tag)} is not deleted: GitHub's API does not show the package to this token",
                registry=self._registry,
                words=error.words,
            ) from error
        self._check_scopes(newest, repository, tag)
        tagged = [version for version in newest.versions if version.tags]
        if not newest.more and [version.tags for version in tagged] == [[tag]]:
            raise Refused(
                f"{self._named(repository, tag)} is not deleted: it is the package's last tag, which GitHub deletes"
                " only with the whole package",
                registry=self._registry,
            )

    async def delete(self, repository: str, digest: Digest, tag: str) -> None:
        """Delete the version that the digest is, if it bears no tag but ``tag``."""
        version = await self._find(repository, digest)
        others = sorted(set(version.tags) - {tag})
        if others:
            raise Refused(
                f"{self._named(repository, tag)} is not deleted: its version now bears other tags too:"
                f" {', '.join(others[:5])}",
                registry=self._registry,
            )
        try:
            await self._api.delete_version(repository, version.id)
        except Refused as error:
            raise Refused(
                f"{self._named(repository, tag)} is not deleted: GitHub keeps it, since it deletes neither a package's"
                " last tag nor much-used public versions",
                registry=self._registry,
                words=error.words,
            ) from error
        await self._seen_gone(repository, digest, tag)

    def _check_scopes(self, page: Versions, repository: str, tag: str) -> None:
        name = self._named(repository, tag)
        if self._api.token.fine_grained:
            raise Forbidden(f"{name} is not deleted: {FINE_GRAINED}", registry=self._registry)
        missing = NEEDED - page.scopes if page.scopes is not None else frozenset()
        if missing:
            raise Forbidden(
                f"{name} is not deleted: the token lacks the scope {' and '.join(sorted(missing))}"
                f" (it has {', '.join(sorted(page.scopes or ())) or 'none'})",
                registry=self._registry,
            )

    async def _find(self, repository: str, digest: Digest) -> Version:
        """The version of a digest that was pushed last, or long ago by a daemon that was killed then."""
        for wait in _LOOKS:
            await trio.sleep(wait)
            newest = await self._api.first_versions(repository)
            if found := _with(newest, digest):
                return found
        if newest.more:
            pages = cast("AsyncGenerator[Versions, None]", self._api.versions(repository))
            async with aclosing(pages):
                async for page in pages:
                    if found := _with(page, digest):
                        return found
        raise BadReply(
            f"GitHub's API does not list the version {digest} of {repository}, which the registry has taken",
            registry=self._registry,
        )

    async def _seen_gone(self, repository: str, digest: Digest, tag: str) -> None:
        """Wait a little until the registry has it no more. Who asked looks again, and judges."""
        for wait in _LOOKS:
            await trio.sleep(wait)
            try:
                if await self._digest_of(repository, tag) != digest:
                    return
            except NotFound:
                return
            except RegfsError:
                continue

    def _named(self, repository: str, tag: str) -> str:
        return f"{self._registry}/{repository}:{tag}"


def _with(page: Versions, digest: Digest) -> Version | None:
    return next((version for version in page.versions if version.name == str(digest)), None)
