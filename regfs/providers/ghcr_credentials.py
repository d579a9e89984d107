"""Where GitHub's tokens are besides regfs's own places: the environment, and `gh`, GitHub's program.

Which variable is for which host, and what `gh auth token` prints: cli.github.com/manual, gh_help_environment and
gh_auth_token.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

import trio

from regfs.auth.program import on_path, run_program
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential

ASK_AGAIN: Final = 5.0
"""Seconds for which what `gh` said holds: the registry and its API ask at the same moment."""

_GITHUB: Final = ("GH_TOKEN", "GITHUB_TOKEN")
_ENTERPRISE: Final = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")


class EnvironmentSource:
    """The token in the environment: a workflow's, or one that a person set. Never one host's for another."""

    def __init__(self, host: str, username: str, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        is_github = host == "github.com" or host.endswith(".ghe.com")
        self._names = _GITHUB if is_github else _ENTERPRISE
        self._username = username

    @property
    def name(self) -> str:
        """See `regfs.ports.CredentialSource.name`."""
        return f"the environment ({', '.join(self._names)})"

    async def get(self, connection: Connection) -> Credential | None:
        """The first of the variables that is set; the user is the connection's, else ``$GITHUB_ACTOR``."""
        for name in self._names:
            if secret := self._environment.get(name, "").strip():
                user = connection.username or self._environment.get("GITHUB_ACTOR", "") or self._username
                return Credential(user, secret, origin=f"${name}")
        return None


class GhSource:
    """The token that `gh` keeps for a host. It is asked once for all who wait, and not where it is not installed."""

    def __init__(self, host: str, username: str, environment: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._username = username
        self._environment = dict(os.environ if environment is None else environment)
        self._lock = trio.Lock()
        self._asked = float("-inf")
        self._found: Credential | None = None

    @property
    def name(self) -> str:
        """See `regfs.ports.CredentialSource.name`."""
        return "gh auth token"

    async def get(self, connection: Connection) -> Credential | None:
        """What ``gh auth token`` prints; None where gh is not there, or is not signed in to that host.

        CredentialError: it cannot be started, is too slow, or prints something else.
        """
        async with self._lock:
            if time.monotonic() - self._asked >= ASK_AGAIN:
                self._found = await self._ask(connection.username)
                self._asked = time.monotonic()
            return self._found

    async def _ask(self, username: str) -> Credential | None:
        try:
            program = await trio.to_thread.run_sync(on_path, "gh", self._environment.get("PATH", os.defpath))
        except CredentialError:
            return None
        arguments = ["auth", "token", "--hostname", self._host]
        if username:
            arguments += ["--user", username]
        code, output = await run_program(program, arguments, b"", self._environment)
        token = output.decode("utf-8", "replace").strip()
        if code != 0 or not token:
            return None
        if not token.isascii() or not token.isprintable() or " " in token:
            raise CredentialError("gh auth token printed something that is no token")
        return Credential(username or self._username, token, origin=self.name)
