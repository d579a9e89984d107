"""GitHub's REST API, as far as packages go. Only errors of `regfs.errors` come out, with GitHub's own words.

Source: github/rest-api-description, api.github.com, API version 2022-11-28 (packages, users, orgs), as of 2026-11;
docs.github.com, "Rate limits for the REST API" and "Scopes for OAuth apps".
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar, cast
from urllib.parse import quote

import msgspec

from regfs.auth.service import bearer
from regfs.errors import (
    BadReply,
    Forbidden,
    NotFound,
    NotSignedIn,
    PagingLoop,
    RateLimited,
    Refused,
    RegfsError,
)
from regfs.ports import Credential, CredentialKind
from regfs.registry.paging import MAX_BARREN
from regfs.registry.replies import Reply, excerpt
from regfs.registry.retry import retry_after
from regfs.registry.service import Service, decoded, next_link

T = TypeVar("T")

HEADERS: Final[Mapping[str, str]] = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
}
PER_PAGE: Final = 100
"""The most that GitHub gives on one page."""

FINE_GRAINED: Final = (
    "GitHub's packages take no fine-grained token: make a classic one with the scope read:packages"
    " (and write:packages, delete:packages to delete)"
)

_JUDGED: Final = frozenset({200, 204, 400, 401, 403, 404, 409, 410, 422, 429})
"""What is read here; the rest, which is worth another try, is the client's."""
_SECONDARY_WAIT: Final = 60.0
_LONGEST_WAIT: Final = 86400.0
_MOST_OWNERS: Final = 4096


class Account(msgspec.Struct):
    """A user or an organisation, as the API spells it."""

    login: str


class Package(msgspec.Struct):
    """A package."""

    name: str
    owner: Account | None = None


class _Container(msgspec.Struct):
    tags: list[str] = []


class _Metadata(msgspec.Struct):
    container: _Container | None = None


class Version(msgspec.Struct):
    """One digest of a package, with all its tags. ``name`` is the digest."""

    id: int
    name: str
    created_at: str | None = None
    metadata: _Metadata | None = None

    @property
    def tags(self) -> list[str]:
        """The tags that lead to it."""
        return self.metadata.container.tags if self.metadata and self.metadata.container else []


class Token:
    """What is known of the token that the API was last sent. Never the token itself."""

    def __init__(self) -> None:
        self.sent = False
        """Whether there was one at all."""
        self.fine_grained = False
        self.of_workflow = False
        """A workflow's own (``GITHUB_TOKEN`` in GitHub Actions): it is nobody's, and the API lists little for it."""

    def headers(self, credential: Credential) -> Mapping[str, str]:
        """The headers for a credential: any password is a token here; other kinds are the registry's alone."""
        self.sent = credential.kind is CredentialKind.PASSWORD
        self.fine_grained = is_fine_grained(credential)
        self.of_workflow = credential.secret.startswith("ghs_")
        return bearer(credential) if self.sent else {}


def is_fine_grained(credential: Credential | None) -> bool:
    """Whether it is a token of the kind that GitHub's packages don't take."""
    return credential is not None and credential.secret.startswith("github_pat_")


@dataclass(frozen=True, slots=True)
class Versions:
    """One page of a package's versions, newest first. ``scopes``: the token's; None: it is of a kind that has none."""

    versions: list[Version]
    more: bool
    scopes: frozenset[str] | None


class Api:
    """GitHub's API for one connection. ``registry`` is what messages call it."""

    def __init__(self, registry: str, service: Service, token: Token) -> None:
        self._registry = registry
        self._service = service
        self.token = token
        self._bases: dict[str, str] = {}

    @property
    def service(self) -> Service:
        """What it speaks through."""
        return self._service

    async def me(self) -> Account:
        """Who is signed in. Forbidden for a token that belongs to nobody (a workflow's)."""
        what = "who is signed in"
        reply = await self._get("user", what)
        account = decoded(reply, Account, what)
        self._learn(account.login, "user")
        return account

    async def organisations(self) -> tuple[list[Account], str]:
        """The organisations of whoever is signed in, and why some are missing. Forbidden where the token lacks read:org."""
        found, missing = await self._accounts(f"user/orgs?per_page={PER_PAGE}", "your organisations")
        for account in found:
            self._learn(account.login, f"orgs/{quote(account.login, safe='')}")
        return found, missing

    async def public_organisations(self, login: str) -> list[Account]:
        """The organisations that a user shows to everybody: no scope is needed for these."""
        target = f"users/{quote(login, safe='')}/orgs?per_page={PER_PAGE}"
        return (await self._accounts(target, f"the public organisations of {login}"))[0]

    async def packages(self, owner: str) -> AsyncIterator[list[Package]]:
        """An owner's container packages, page by page. NotFound: no such owner; Forbidden: not for this token."""
        query = f"packages?package_type=container&per_page={PER_PAGE}"
        what = f"the packages of {owner}"
        pages = self._of_owner(owner, lambda base: self._pages(f"{base}/{query}", Package, what))
        async with aclosing(pages):
            async for page, _ in pages:
                yield page

    async def versions(self, repository: str) -> AsyncIterator[Versions]:
        """A package's versions, newest first, page by page. NotFound, unasked, for an owner without a package."""
        owner, _, package = repository.partition("/")
        if not package:
            raise NotFound(f"{self._registry} has no package {repository}", registry=self._registry)
        tail = f"packages/container/{quote(package, safe='')}/versions?per_page={PER_PAGE}"
        what = f"the versions of {repository}"
        pages = self._of_owner(owner, lambda base: self._pages(f"{base}/{tail}", Version, what))
        async with aclosing(pages):
            async for page, reply in pages:
                yield Versions(page, next_link(reply) is not None, _scopes(reply, "x-oauth-scopes"))

    async def first_versions(self, repository: str) -> Versions:
        """The newest versions of a package. NotFound where there is no such package, or it is not shown."""
        async with aclosing(cast("AsyncGenerator[Versions, None]", self.versions(repository))) as pages:
            async for page in pages:
                return page
        raise NotFound(f"{self._registry} has no package {repository}", registry=self._registry)

    async def delete_version(self, repository: str, version: int) -> None:
        """Delete one version, with all the tags that it has. Refused, with the reason, where GitHub keeps it."""
        owner, _, package = repository.partition("/")
        base = self._bases.get(owner.lower())
        if base is None:
            raise BadReply(
                f"whether {owner} is a user or an organisation is not known", registry=self._registry
            )
        target = f"{base}/packages/container/{quote(package, safe='')}/versions/{version}"
        what = f"deleting a version of {repository}"
        reply = await self._service.request("DELETE", target, headers=HEADERS, expect=_JUDGED, what=what)
        if reply.status not in (200, 204, 404, 410):
            raise self._error(reply, what)

    async def aclose(self) -> None:
        """Close connections."""
        await self._service.aclose()

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    def _learn(self, owner: str, base: str) -> None:
        if len(self._bases) >= _MOST_OWNERS:
            self._bases.clear()
        self._bases[owner.lower()] = base

    async def _of_owner(
        self, owner: str, pages_at: Callable[[str], AsyncGenerator[tuple[T, Reply], None]]
    ) -> AsyncGenerator[tuple[T, Reply], None]:
        """The pages below an owner, which is a user or an organisation: the API asks callers to know which."""
        known = self._bases.get(owner.lower())
        quoted = quote(owner, safe="")
        bases = [known] if known else [f"orgs/{quoted}", f"users/{quoted}"]
        for base in bases:
            try:
                async with aclosing(pages_at(base)) as pages:
                    async for page in pages:
                        self._learn(owner, base)
                        yield page
            except NotFound:
                if base == bases[-1]:
                    raise
            else:
                return

    async def _accounts(self, target: str, what: str) -> tuple[list[Account], str]:
        found: list[Account] = []
        missing = ""
        async with aclosing(self._pages(target, Account, what)) as pages:
            async for page, reply in pages:
                found += page
                if reply.headers.get("x-github-sso", "").startswith("partial-results"):
                    missing = (
                        "organisations with single sign-on are missing for which the token is not authorised"
                    )
        return found, missing

    async def _get(self, target: str, what: str) -> Reply:
        reply = await self._service.request("GET", target, headers=HEADERS, expect=_JUDGED, what=what)
        return self._good(reply, what)

    async def _pages(
        self, target: str, item: type[T], what: str
    ) -> AsyncGenerator[tuple[list[T], Reply], None]:
        def read(reply: Reply) -> tuple[tuple[list[T], Reply], str | None]:
            return (decoded(self._good(reply, what), list[item], what), reply), next_link(reply)  # type: ignore[valid-type]

        found = self._service.pages(target, read, headers=HEADERS, expect=_JUDGED, what=what)
        barren = 0
        async with aclosing(cast("AsyncGenerator[tuple[list[T], Reply], None]", found)) as pages:
            async for page in pages:
                barren = 0 if page[0] else barren + 1
                if barren > MAX_BARREN:
                    raise PagingLoop(
                        f"{what}: GitHub's API gives empty pages for ever", registry=self._registry
                    )
                yield page

    def _good(self, reply: Reply, what: str) -> Reply:
        if reply.status != 200:
            raise self._error(reply, what)
        return reply

    def _error(self, reply: Reply, what: str) -> RegfsError:
        """What a reply means that is not what was asked for."""
        words, name = message_of(reply), self._registry
        wait = wait_of(reply, time.time())
        if wait is not None:
            until = datetime.fromtimestamp(time.time() + wait, UTC)
            return RateLimited(
                f"the rate limit of GitHub's API is used up until {until:%H:%M:%S} UTC: {what}",
                retry_after=wait,
                registry=name,
                words=words,
            )
        hint = f": {FINE_GRAINED}" if self.token.fine_grained else ""
        if reply.status == 401:
            fact = "does not take the token" if self.token.sent else "wants a sign-in"
            return NotSignedIn(f"GitHub's API {fact}: {what}{hint}", registry=name, words=words)
        if reply.status == 403:
            return Forbidden(
                f"GitHub's API does not allow this: {what}{hint or _lacking(reply)}",
                registry=name,
                words=words,
            )
        if reply.status in (404, 410):
            return NotFound(f"GitHub's API does not have it: {what}", registry=name, words=words)
        return Refused(f"GitHub's API refuses this ({reply.status}): {what}", registry=name, words=words)


def message_of(reply: Reply) -> str:
    """GitHub's own words in an error's JSON; empty where it is something else."""
    try:
        return excerpt(msgspec.json.decode(reply.body[:65536], type=_Message).message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class _Message(msgspec.Struct):
    message: str = ""


def wait_of(reply: Reply, now: float) -> float | None:
    """For how many seconds a rate limit forbids to ask again; None: the reply speaks of no rate limit."""
    headers = reply.headers
    used_up = headers.get("x-ratelimit-remaining", "").strip() == "0"
    secondary = "rate limit" in message_of(reply).lower()
    told = retry_after(headers, now)
    if reply.status not in (403, 429) or not (
        reply.status == 429 or used_up or secondary or told is not None
    ):
        return None
    if told is not None:
        return min(told, _LONGEST_WAIT)
    reset = headers.get("x-ratelimit-reset", "").strip()
    if used_up and reset.isascii() and reset.isdecimal():
        return min(max(0.0, float(reset[:12]) - now), _LONGEST_WAIT)
    return _SECONDARY_WAIT


def _scopes(reply: Reply, header: str) -> frozenset[str] | None:
    text = reply.headers.get(header)
    return None if text is None else frozenset(part.strip() for part in text.split(",") if part.strip())


def _lacking(reply: Reply) -> str:
    """What the token lacks, where GitHub says so."""
    if reply.headers.get("x-github-sso", "").startswith("required"):
        return ": the token is not authorised for that organisation's single sign-on (Settings, Tokens, Configure SSO)"
    wanted, granted = _scopes(reply, "x-accepted-oauth-scopes"), _scopes(reply, "x-oauth-scopes")
    if not wanted or granted is None or wanted & granted:
        return ""
    return f": the token has the scopes {_named(granted)}, and this takes one of {_named(wanted)}"


def _named(scopes: frozenset[str]) -> str:
    return excerpt(", ".join(sorted(scopes))) or "(none)"
