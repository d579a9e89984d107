"""GitLab's REST API (v4) as far as its registry goes: requests, pages, and what its refusals mean.

Sources: gitlabhq/gitlabhq, doc/api/rest/_index.md (paging, encoding), doc/api/container_registry.md, groups.md,
projects.md, personal_access_tokens.md; lib/api/api_guard.rb for how a refusal is spelled.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Container
from typing import TYPE_CHECKING, Final, TypeVar, Unpack
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec

from regfs.connection import Connection
from regfs.errors import Forbidden, NotFound, NotSignedIn, RegfsError, SignInEnded
from regfs.ports import HttpPolicy
from regfs.providers.gitlab_tokens import USE_INSTEAD, Kind, Signer
from regfs.registry.replies import Reply, error_for, excerpt
from regfs.registry.service import Asked, Service, decoded, next_link

if TYPE_CHECKING:
    from regfs.auth.service import ServiceFlow

T = TypeVar("T")

PAGE: Final = 100
"""Entries of a page: the most that GitLab gives."""

EXPLAINED: Final = frozenset({401, 403, 404})
"""Statuses whose reasons are read out of the reply's body."""


class Repository(msgspec.Struct):
    """One registry repository (container_registry.md). ``path`` is what stands in a reference."""

    id: int
    path: str
    project_id: int
    name: str = ""


class Tag(msgspec.Struct):
    """One tag of a repository; ``digest`` comes with one tag's details alone."""

    name: str
    digest: str | None = None


class Group(msgspec.Struct):
    """One group (groups.md)."""

    id: int
    full_path: str


class Namespace(msgspec.Struct):
    """Where a project is: ``kind`` is ``group`` or ``user``."""

    full_path: str = ""
    kind: str = ""


class Project(msgspec.Struct):
    """One project (projects.md). What the registry's fields say is not shown to everybody: absent is no no."""

    id: int
    path_with_namespace: str
    namespace: Namespace | None = None
    container_registry_enabled: bool | None = None
    container_registry_access_level: str | None = None

    @property
    def may_have_registry(self) -> bool:
        """False where GitLab says that its registry is off."""
        return (
            self.container_registry_enabled is not False
            and self.container_registry_access_level != "disabled"
        )


class TagRule(msgspec.Struct):
    """A rule that protects tags (container_registry_protection_tag_rules.md)."""

    tag_name_pattern: str = ""
    minimum_access_level_for_delete: str | None = None


class TokenDetails(msgspec.Struct):
    """An access token's own details (personal_access_tokens.md)."""

    scopes: list[str] = []
    revoked: bool = False
    active: bool = True


class _Refusal(msgspec.Struct):
    error: str = ""
    error_description: str = ""
    scope: str = ""
    message: object = None


class Api(Service):
    """The API of the GitLab at ``base`` (``https://gitlab.example.com``, ``https://host/gitlab``).

    Raises as `Service`; what GitLab says of a refused token or a missing scope is in the message.
    """

    def __init__(
        self, connection: Connection, base: str, policy: HttpPolicy, auth: ServiceFlow | None, signer: Signer
    ) -> None:
        super().__init__(connection, f"{base}/api/v4", policy, auth)
        self.host = urlsplit(base).netloc
        self.signer = signer

    async def request(self, method: str, target: str, **asked: Unpack[Asked]) -> Reply:
        """As `Service.request`, with GitLab's reasons."""
        expect, what = asked.get("expect", (200,)), asked.get("what", "")
        asked["expect"] = _Either(expect, EXPLAINED)
        try:
            reply = await super().request(method, target, **asked)
        except SignInEnded:
            raise
        except NotSignedIn as error:
            raise self._not_taken(error.words) from error
        except RegfsError as error:
            error.registry = error.registry or self.host
            raise
        if reply.status in expect:
            return reply
        raise self._refused(reply, what)

    async def list(self, target: str, shape: type[T], *, what: str, **query: str) -> AsyncIterator[list[T]]:
        """A listing, page by page, by Link (both kinds of paging) or, where a proxy drops that, by ``X-Next-Page``."""
        first = f"{target}?{urlencode({'per_page': PAGE, **query})}"
        read: Callable[[Reply], tuple[list[T], str | None]] = _reader(shape, what)
        async for page in self.pages(first, read, what=what):
            yield page

    def _refused(self, reply: Reply, what: str) -> RegfsError:
        said = _refusal(reply.body)
        if reply.status == 401:
            return self._not_taken(_words(said))
        if reply.status == 404:
            return NotFound(f"{self.host} does not have it: {what}", registry=self.host, words=_words(said))
        if said.error in ("insufficient_scope", "insufficient_granular_scope"):
            return MissingScope(
                f"{self.signer.who} lacks a scope: GitLab wants {_any_of(said.scope)} for {what}",
                registry=self.host,
            )
        error = error_for(reply, self.host, what, time.time())
        error.words = _words(said) or error.words
        return error

    def _not_taken(self, words: str) -> NotSignedIn:
        who, said = self.signer.who, words.lower()
        if self.signer.known in (None, Kind.NONE):
            return NotSignedIn(
                f"{self.host} shows that to nobody who is not signed in", registry=self.host, words=words
            )
        if "expired" in said:
            return NotSignedIn(f"{who} has expired: make a new one and sign in with it", registry=self.host)
        if "revoked" in said:
            return NotSignedIn(f"{who} was revoked: make a new one and sign in with it", registry=self.host)
        hint = {
            Kind.JOB: "a job token is good while its job runs, and for the registry of its own project",
            Kind.OAUTH: "sign in once more",
        }.get(
            self.signer.known,
            f"it is wrong or no longer good, or a password or a deploy token; it wants {USE_INSTEAD}",
        )
        return NotSignedIn(f"GitLab's API does not take {who}: {hint}", registry=self.host, words=words)


class MissingScope(Forbidden):
    """The token is good, and was made without a scope that this needs."""


class _Either:
    """A container of statuses: those of the caller's, and some more."""

    def __init__(self, given: Container[int], more: Container[int]) -> None:
        self._given, self._more = given, more

    def __contains__(self, status: object) -> bool:
        return status in self._given or status in self._more


def quoted(path: str) -> str:
    """A group's or project's path as one component of a URL."""
    return quote(path, safe="")


def decoded_list(reply: Reply, shape: type[T], what: str) -> list[T]:
    """A reply's JSON array. BadReply where it is something else."""
    return decoded(reply, list[shape], what)  # type: ignore[valid-type]


def _reader(shape: type[T], what: str) -> Callable[[Reply], tuple[list[T], str | None]]:
    def read(reply: Reply) -> tuple[list[T], str | None]:
        return decoded_list(reply, shape, what), _following(reply)

    return read


def _following(reply: Reply) -> str | None:
    link = next_link(reply)
    if link is not None:
        return link
    page = reply.headers.get("x-next-page", "").strip()[:12]
    if not page.isdecimal():
        return None
    parts = urlsplit(reply.url)
    query = {**dict(parse_qsl(parts.query, keep_blank_values=True)), "page": page}
    return f"{parts.path}?{urlencode(query)}"


def _refusal(body: bytes) -> _Refusal:
    try:
        return msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Refusal()


def _words(said: _Refusal) -> str:
    message = said.message if isinstance(said.message, str) else ""
    return excerpt(said.error_description or message or said.error)


def _any_of(scopes: str) -> str:
    listed = excerpt(scopes).split()
    return " or ".join(listed) if listed else "another scope"
