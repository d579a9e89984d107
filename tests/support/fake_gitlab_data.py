"""What a `FakeGitLab` holds: groups, projects, users' namespaces, tokens and rules; and who may do what with it.

Roles: GitLab's documentation, "Roles and permissions": Guest 10, Reporter 20, Developer 30, Maintainer 40, Owner 50.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

GUEST, REPORTER, DEVELOPER, MAINTAINER, OWNER = 10, 20, 30, 40, 50
ROLES: Final = {"maintainer": MAINTAINER, "owner": OWNER, "admin": 60}


@dataclass
class Token:
    """A token: ``kind`` is personal, project, group, deploy, job or oauth; ``roles`` by the path of a group or project.

    ``state`` is active, expired or revoked.
    """

    kind: str
    secret: str
    user: str
    scopes: frozenset[str]
    roles: Mapping[str, int] = field(default_factory=dict)
    state: str = "active"

    @property
    def is_access(self) -> bool:
        """Whether it is sent as PRIVATE-TOKEN."""
        return self.kind in ("personal", "project", "group")

    def role(self, path: str) -> int:
        """The role in a group or project: its own, or one that is inherited from above."""
        parts = path.split("/")
        above = ("/".join(parts[:length]) for length in range(1, len(parts) + 1))
        return max((self.roles.get(name, 0) for name in above), default=0)


@dataclass
class Project:
    """A project; ``rules`` are its protection rules for tags, pattern and least role that deletes (None: immutable)."""

    id: int
    path: str
    public: bool = False
    registry: bool = True
    rules: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def low(self) -> str:
        """The path as the registry spells it."""
        return self.path.lower()


class World:
    """Everything that is there."""

    def __init__(self) -> None:
        self._numbers = itertools.count(7)
        self.projects: dict[str, Project] = {}
        self.groups: dict[str, int] = {}
        self.users: dict[str, int] = {}
        self.tokens: list[Token] = []
        self._repositories: dict[str, int] = {}

    def add_user(self, name: str) -> None:
        """A user, whose namespace may hold projects."""
        self.users[name] = next(self._numbers)

    def add_project(self, path: str, *, public: bool = False, registry: bool = True) -> Project:
        """A project, and the groups above it."""
        found = self.projects.get(path.lower())
        if found is None:
            found = Project(next(self._numbers), path, public, registry)
            self.projects[path.lower()] = found
            parts = path.split("/")[:-1]
            assert parts, "a project lies in a group or a user's namespace"
            if parts[0] not in self.users:
                for length in range(1, len(parts) + 1):
                    self.groups.setdefault("/".join(parts[:length]), next(self._numbers))
        return found

    def project_of(self, repository: str) -> Project | None:
        """The project that a registry repository is of: at its own path, or above."""
        parts = repository.split("/")
        above = ("/".join(parts[:length]) for length in range(len(parts), 1, -1))
        return next((self.projects[path] for path in above if path in self.projects), None)

    def project(self, ref: str) -> Project | None:
        """A project by its id or its path."""
        if ref.isdecimal():
            return next((found for found in self.projects.values() if found.id == int(ref)), None)
        return self.projects.get(ref.lower())

    def group(self, ref: str) -> str | None:
        """A group's path by its id or its path."""
        for path, number in self.groups.items():
            if ref == str(number) or ref.lower() == path.lower():
                return path
        return None

    def repository_id(self, repository: str) -> int:
        """A registry repository's id."""
        return self._repositories.setdefault(repository, 1000 + next(self._numbers))

    def token(self, secret: str) -> Token | None:
        """The token with that secret, whatever its state."""
        return next((token for token in self.tokens if token.secret == secret), None)

    # ── rights ───────────────────────────────────────────────────────────────────────────────────

    def sees(self, token: Token | None, project: Project) -> bool:
        """Whether a project is visible: public, or one has a role there."""
        return project.public or (token is not None and token.role(project.low) >= GUEST)

    def sees_group(self, token: Token | None, group: str) -> bool:
        """Whether a group is visible: it holds something that is."""
        inside = (p for p in self.projects.values() if p.low.startswith(f"{group.lower()}/"))
        return (token is not None and token.role(group.lower()) > 0) or any(
            self.sees(token, p) for p in inside
        )

    def reads_images(self, token: Token | None, project: Project) -> bool:
        """``read_container_image``."""
        role = 0 if token is None else token.role(project.low)
        return project.registry and (project.public or role >= REPORTER)

    def deletes_tags(self, token: Token | None, project: Project) -> bool:
        """``destroy_container_image_tag``: any rule of the project stands in the way of a lesser role."""
        role = 0 if token is None else token.role(project.low)
        return role >= DEVELOPER and all(
            least is not None and role >= ROLES[least] for _, least in project.rules
        )

    def is_member(self, token: Token, project: Project) -> bool:
        """Whether one belongs to a project, be it by a group above."""
        return token.role(project.low) > 0
