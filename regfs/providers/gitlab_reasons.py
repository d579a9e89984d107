"""Why GitLab's registry refused: its own answer to a token without a scope is like that to one without a right."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from regfs.errors import AccessDenied, Forbidden, NotFound, NotSignedIn, RegfsError
from regfs.providers.gitlab_api import TokenDetails
from regfs.providers.gitlab_tokens import USE_INSTEAD, Kind

if TYPE_CHECKING:
    from regfs.providers.gitlab_instance import Instance
    from regfs.providers.gitlab_names import Names
    from regfs.providers.gitlab_tokens import Signer

TOLD_FOR: Final = 60.0
"""Seconds for which what the API said of a token is not asked again: a walk may be refused a thousand times."""

_OPENS_REGISTRY: Final = frozenset({"read_registry", "api"})


class Reasons:
    """Finds the reason of the registry's refusals, by at most one question a minute about the token."""

    def __init__(self, registry: str, instance: Instance, signer: Signer, names: Names) -> None:
        self._registry = registry
        self._instance = instance
        self._signer = signer
        self._names = names
        self._token: tuple[TokenDetails | NotSignedIn | None, float] | None = None

    async def of(self, error: AccessDenied, repository: str = "") -> RegfsError:
        """The error to raise in place of ``error``: with the reason, or NotFound where there is no such repository.

        Where the reason cannot be had, that is ``error`` itself.
        """
        kind = await self._signer.kind()
        if isinstance(error, NotSignedIn):
            return await self._not_signed_in(error, kind)
        if repository and kind in (Kind.ACCESS, Kind.OAUTH, Kind.JOB) and await self._is_absent(repository):
            return NotFound(
                f"{self._registry} shows no repository {repository}",
                registry=self._registry,
                words=error.words,
            )
        reason = await self._reason(kind, repository)
        return Forbidden(reason, registry=self._registry, words=error.words) if reason else error

    async def _not_signed_in(self, error: NotSignedIn, kind: Kind) -> RegfsError:
        """The registry's 401 does not say whether a token is expired, revoked or none; the API's does."""
        if kind is not Kind.ACCESS:
            return error
        told = await self._details()
        if isinstance(told, NotSignedIn):
            return NotSignedIn(told.message, registry=self._registry, words=told.words)
        return error

    async def _is_absent(self, repository: str) -> bool:
        try:
            await self._names.find(repository)
        except NotFound:
            return True
        except RegfsError:
            return False
        return False

    async def _reason(self, kind: Kind, repository: str) -> str:
        where = repository or "the registry"
        match kind:
            case Kind.OAUTH:
                return (
                    f"GitLab's registry does not let an OAuth token in, so {where} cannot be read; names and deletion go "
                    f"by its API. To read, sign in with {USE_INSTEAD}"
                )
            case Kind.DEPLOY:
                return f"{self._signer.who} does not open {where}: it lacks the scope read_registry, or is another project's"
            case Kind.JOB:
                return f"{self._signer.who} does not open {where}: it is for its own project, and those that allow it"
            case Kind.ACCESS:
                return self._of_access(await self._details(), where)
        return ""

    def _of_access(self, told: TokenDetails | NotSignedIn | None, where: str) -> str:
        who = self._signer.who
        if not isinstance(told, TokenDetails):
            return f"{who} does not open {where}: it lacks the scope read_registry, or its owner may not read there"
        if not _OPENS_REGISTRY & set(told.scopes):
            has = ", ".join(sorted(told.scopes)[:12]) or "none"
            return f"{who} lacks the scope read_registry, without which {where} cannot be read; it has {has}"
        return f"{who} has the scope to read, and its owner may not read {where}"

    async def _details(self) -> TokenDetails | NotSignedIn | None:
        """What the API says of the token itself, which any scope may ask; None where it says nothing."""
        if self._token is not None and time.monotonic() < self._token[1]:
            return self._token[0]
        told: TokenDetails | NotSignedIn | None
        try:
            api = await self._instance.api()
            told = await api.read("personal_access_tokens/self", TokenDetails, what="the token's scopes")
        except NotSignedIn as error:
            told = error
        except RegfsError:
            told = None
        self._token = told, time.monotonic() + TOLD_FOR
        return told
