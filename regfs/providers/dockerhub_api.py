"""The Hub API as far as it is used: namespaces, repositories, tags with their dates, deleting a tag.

Source: Docker's OpenAPI description (docker/docs, content/reference/api/hub/latest.yaml), changelog of 2025-11-21. The
namespaces of an account and DELETE of a tag are not in it; they are as docker/hub-tool and goharbor/harbor use them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec

from regfs.auth.session import SessionFlow, TokenForm
from regfs.digest import Digest
from regfs.errors import (
    Forbidden,
    NotFound,
    NotSignedIn,
    PagingLoop,
    Refused,
    RegfsError,
    ServerFailed,
    Unsupported,
)
from regfs.ports import Credential, TagFacts, TagPage
from regfs.providers.dockerhub import NAME
from regfs.reference import is_component, is_tag
from regfs.registry.replies import Reply, excerpt
from regfs.registry.service import Service, decoded

T = TypeVar("T")

SIGN_IN: Final = "v2/auth/token"
PAGE_SIZE: Final = 100
"""Entries of a page: the most that the API allows."""
MAX_BARREN: Final = 10
"""Pages in a row that bring nothing new; a listing that goes on like that is taken for endless."""

_ANSWERED: Final = (frozenset(range(200, 300)) | frozenset(range(400, 600))) - {401, 408, 429}
_WRAPPED_REFUSAL: Final = re.compile(rb"status=40[13]\b")

FORM: Final = TokenForm(
    SIGN_IN,
    fields=lambda credential: {"identifier": credential.username, "secret": credential.secret},
    member="access_token",
    lifetime=600.0,
)
"""An access token "expires in 10 minutes" (AuthCreateTokenResponse)."""


class _Named(msgspec.Struct):
    name: object = None


class _Organisation(msgspec.Struct):
    orgname: object = None


class _Tag(msgspec.Struct):
    name: object = None
    digest: object = None
    tag_last_pushed: object = None
    last_updated: object = None


class _Repositories(msgspec.Struct):
    results: list[_Named] | None
    next: str | None = None


class _Organisations(msgspec.Struct):
    results: list[_Organisation] | None
    next: str | None = None


class _Tags(msgspec.Struct):
    results: list[_Tag] | None
    next: str | None = None


class _Namespaces(msgspec.Struct):
    namespaces: list[object] | None
    next: str | None = None


class HubApi:
    """Asks the Hub API, signed with its own token where the sign-in allows one."""

    def __init__(self, service: Service, flow: SessionFlow | None) -> None:
        self._service = service
        self._flow = flow

    @property
    def refused(self) -> NotSignedIn | None:
        """Why the API does not take the sign-in, while that is so: it then shows what is public."""
        return None if self._flow is None else self._flow.refused

    async def credential(self) -> Credential | None:
        """What it signs in with, if there is anything."""
        return None if self._flow is None else await self._flow.credential()

    def counters(self) -> Mapping[str, int]:
        """The client's counters since the start."""
        return self._service.counters()

    async def aclose(self) -> None:
        """Close connections."""
        await self._service.aclose()

    # ── listings ─────────────────────────────────────────────────────────────────────────────────

    def namespaces(self) -> AsyncGenerator[Sequence[str], None]:
        """The namespaces that the account can push to."""

        def read(reply: Reply) -> tuple[list[str], str | None]:
            page = decoded(reply, _Namespaces, "the account's namespaces")
            return _components(page.namespaces), page.next

        return self._names(
            f"v2/repositories/namespaces?page_size={PAGE_SIZE}", read, "the account's namespaces"
        )

    def organisations(self) -> AsyncGenerator[Sequence[str], None]:
        """The organisations that the account is in."""

        def read(reply: Reply) -> tuple[list[str], str | None]:
            page = decoded(reply, _Organisations, "the account's organisations")
            return _components(found.orgname for found in page.results or ()), page.next

        return self._names(f"v2/user/orgs/?page_size={PAGE_SIZE}", read, "the account's organisations")

    def repositories(self, namespace: str) -> AsyncGenerator[Sequence[str], None]:
        """The names of a namespace's repositories, without the namespace. Raises NotFound, AccessDenied."""
        what = f"the repositories of {namespace}"

        def read(reply: Reply) -> tuple[list[str], str | None]:
            page = decoded(reply, _Repositories, what)
            return _components(found.name for found in page.results or ()), page.next

        return self._names(f"v2/namespaces/{namespace}/repositories?page_size={PAGE_SIZE}", read, what)

    async def tags(self, repository: str) -> AsyncGenerator[TagPage, None]:
        """A repository's tags with their dates and digests, in the API's order. Raises NotFound, AccessDenied."""
        what = f"the tags of {repository}"

        def read(reply: Reply) -> tuple[TagPage, str | None]:
            page = decoded(reply, _Tags, what)
            named = [(tag.name, _facts(tag)) for tag in page.results or () if isinstance(tag.name, str)]
            return TagPage([name for name, _ in named], dict(named)), page.next

        target = f"{_below(repository)}/tags?page_size={PAGE_SIZE}"
        async with aclosing(self._pages(target, read, lambda page: page.names, what)) as pages:
            async for page in pages:
                yield page

    async def _names(
        self, target: str, read: Callable[[Reply], tuple[list[str], str | None]], what: str
    ) -> AsyncGenerator[Sequence[str], None]:
        async with aclosing(self._pages(target, read, lambda names: names, what)) as pages:
            async for names in pages:
                yield names

    async def _pages(
        self,
        target: str,
        read: Callable[[Reply], tuple[T, str | None]],
        names: Callable[[T], Sequence[str]],
        what: str,
    ) -> AsyncGenerator[T, None]:
        seen: set[str] = set()
        barren = 0
        pages = self._service.pages(target, read, what=what)
        async for page in pages:
            before = len(seen)
            seen.update(names(page))
            barren = barren + 1 if len(seen) == before else 0
            if barren > MAX_BARREN:
                raise PagingLoop(f"{what}: {barren} pages in a row brought nothing new", registry=NAME)
            yield page

    # ── tags ─────────────────────────────────────────────────────────────────────────────────────

    async def has_repository(self, repository: str) -> bool:
        """Whether the API shows that repository."""
        return await self._has(_below(repository), f"whether {repository} is there")

    async def has_tag(self, repository: str, tag: str) -> bool:
        """Whether the API has that tag now."""
        target = f"{_below(repository)}/tags/{_checked(tag)}"
        return await self._has(target, f"whether {repository}:{tag} is there")

    async def _has(self, target: str, what: str) -> bool:
        reply = await self._service.request("HEAD", target, expect=frozenset({200, 404}), what=what)
        return reply.status == 200

    async def delete_tag(self, repository: str, tag: str) -> None:
        """Delete one tag. Raises NotFound, AccessDenied, Refused, Unsupported; ServerFailed: it may have been done."""
        reply = await self._service.request(
            "DELETE",
            f"v2/repositories/{repository}/tags/{_checked(tag)}/",
            expect=_ANSWERED,
            what=f"deleting {repository}:{tag}",
        )
        if reply.status >= 300:
            raise await self._not_deleted(reply, repository, tag)

    async def _not_deleted(self, reply: Reply, repository: str, tag: str) -> RegfsError:
        words, what = _words(reply), f"{repository}:{tag}"
        if reply.status == 403 or (reply.status == 500 and _WRAPPED_REFUSAL.search(reply.body[:65536])):
            lack = _lack(await self.credential(), repository)
            return Forbidden(
                f"{NAME} does not let this sign-in delete {what}: {lack}", registry=NAME, words=words
            )
        if reply.status in (404, 410):
            return NotFound(f"the Hub API has no {what} for this sign-in", registry=NAME, words=words)
        if reply.status in (405, 501):
            return Unsupported(
                f"the Hub API does not delete tags in {repository}", registry=NAME, words=words
            )
        if reply.status >= 500:
            return ServerFailed(
                f"the Hub API failed with status {reply.status}: deleting {what}", registry=NAME, words=words
            )
        return Refused(f"the Hub API refuses ({reply.status}) to delete {what}", registry=NAME, words=words)


def is_organisation_token(credential: Credential | None) -> bool:
    """Whether a secret is an organisation's access token, whose user name is the organisation's."""
    return credential is not None and credential.secret.startswith("dckr_oat_")


def _lack(credential: Credential | None, repository: str) -> str:
    """What a sign-in lacks to delete, as far as its kind tells."""
    namespace = repository.partition("/")[0]
    if is_organisation_token(credential):
        return f"the organisation access token must be of {namespace}, and hold {repository} with the right to push and delete"
    if credential is not None and credential.secret.startswith("dckr_pat_"):
        return (
            'a personal access token needs the permission "Read, Write, Delete" (repo:admin), '
            f"and its account the right to administer {namespace}"
        )
    return f"deleting needs the right to administer {repository}: of its owner, or of a team with Admin there"


def _facts(tag: _Tag) -> TagFacts:
    return TagFacts(_digest(tag.digest), _moment(tag.tag_last_pushed) or _moment(tag.last_updated))


def _digest(value: object) -> Digest | None:
    try:
        return Digest.parse(value) if isinstance(value, str) else None
    except (ValueError, Unsupported):
        return None


def _moment(value: object) -> datetime | None:
    """An RFC 3339 time. The API writes the year 1 where there is none."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.year < 1970:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _components(names: object) -> list[str]:
    if names is None:
        return []
    return [name for name in names if isinstance(name, str) and is_component(name)]  # type: ignore[attr-defined]


def _below(repository: str) -> str:
    namespace, _, name = repository.partition("/")
    return f"v2/namespaces/{namespace}/repositories/{name}"


def _checked(tag: str) -> str:
    if not is_tag(tag):
        raise NotFound(f"{tag[:140]!r} cannot be a tag", registry=NAME)
    return tag


class _Said(msgspec.Struct):
    detail: object = None
    message: object = None


def _words(reply: Reply) -> str:
    """The API's own words, which it puts under one of two names."""
    try:
        said = msgspec.json.decode(reply.body[:65536], type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return excerpt(reply.body[:4096].decode("utf-8", "replace"))
    texts = (text for text in (said.detail, said.message) if isinstance(text, str))
    return excerpt(next(texts, ""))
