"""What a fake GitHub holds, and its registry: see `tests.support.fake_github` for what they follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

from regfs.testing.fake import FakeRegistry
from regfs.testing.records import Request
from regfs.testing.replies import Reply, json_reply


@dataclass
class Token:
    """A token: of whom (empty: a workflow's), and its scopes; None: of a kind without scopes."""

    login: str
    scopes: frozenset[str] | None = frozenset(
        {"read:packages", "write:packages", "delete:packages", "read:org"}
    )
    forbidden: frozenset[str] = frozenset()
    """Organisations, in lower case, that the token is not good for."""
    revoked: bool = False


@dataclass
class GitHub:
    """What GitHub holds beside the registry: accounts as they are spelled, memberships, tokens."""

    users: set[str] = field(default_factory=lambda: {"Octocat"})
    organisations: dict[str, set[str]] = field(default_factory=lambda: {"Octo-Org": {"Octocat"}})
    public_members: dict[str, set[str]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=lambda: {"ghp_good": Token("Octocat")})

    def spelled(self, name: str) -> str:
        """An owner's name as its account spells it."""
        return next((n for n in (*self.users, *self.organisations) if n.lower() == name.lower()), name)


class _AnyUser(Mapping[str, str]):
    """Has an answer for every user name."""

    def __init__(self, github: GitHub) -> None:
        self._github = github

    def __getitem__(self, user: str) -> str:
        return _Good(self._github)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Good(str):
    """Equals every token that is good."""

    github: GitHub

    def __new__(cls, github: GitHub) -> Self:
        made = super().__new__(cls, "")
        made.github = github
        return made

    def __eq__(self, other: object) -> bool:
        token = self.github.tokens.get(str(other)) if isinstance(other, str) else None
        return token is not None and not token.revoked and not str(other).startswith("github_pat_")

    __hash__ = None  # type: ignore[assignment]


def any_user(github: GitHub) -> Mapping[str, str]:
    """The passwords of a registry that looks at the token alone."""
    return _AnyUser(github)


class GhcrRegistry(FakeRegistry):
    """The registry alone."""

    def _answer(self, request: Request) -> Reply:
        if request.listener == "registry" and request.method == "DELETE":
            self.violations.append(f"a v2 DELETE, which ghcr.io never takes: {request.path}")
        if request.route.kind == "catalog" and request.listener == "registry":
            return self.sign_in.refusal(request) or self._catalog(request)
        return super()._answer(request)

    def _catalog(self, request: Request) -> Reply:
        if self.behaviour.catalog_status != 200:
            return super()._answer(request)
        last, size = request.query.get("last", ""), int(request.query.get("n", "100"))
        names = sorted(name for name in self.store.repositories() if name > last)
        page = names[:size]
        follows = page[-1] if page else f"{last}~"
        reply = json_reply({"repositories": page})
        reply.headers.append(("Link", f'</v2/_catalog?n={size}&last={quote(follows, safe="")}>; rel="next"'))
        return reply
