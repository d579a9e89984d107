"""Docker's credential helpers: programs ``docker-credential-SUFFIX`` that keep secrets for others.

Protocol: docker/docker-credential-helpers. ``get`` and ``erase`` read a server's URL, ``store`` reads JSON; failures
are exit code 1 with the reason on standard output.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from regfs.auth.program import on_path, run_program
from regfs.auth.validity import TOKEN_USER
from regfs.auth.words import blotted
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

_SUFFIX: Final = re.compile(r"[A-Za-z0-9._-]+")
_NOT_FOUND: Final = "credentials not found in native keychain"


class _Entry(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


class _Stored(msgspec.Struct):
    server: str = msgspec.field(name="ServerURL")
    username: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


class Helper:
    """One helper program, named by its suffix. CredentialError where that is no suffix, or no such program is there."""

    def __init__(self, suffix: str, environment: Mapping[str, str] | None = None) -> None:
        if not _SUFFIX.fullmatch(suffix):
            raise CredentialError(f"not the name of a credential helper: {suffix[:40]!r}")
        self.name = f"docker-credential-{suffix}"
        self._environment = dict(os.environ if environment is None else environment)
        self._program = on_path(self.name, self._environment.get("PATH", os.defpath))

    async def get(self, server: str) -> Credential | None:
        """The credential that the helper has for ``server``, or None. CredentialError: it failed."""
        code, output = await self._run("get", server.encode())
        if code != 0:
            if output.decode("utf-8", "replace").strip() == _NOT_FOUND:
                return None
            raise self._failed(code, output)
        try:
            entry = msgspec.json.decode(output, type=_Entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CredentialError(f"{self.name} gave no credential that can be read") from error
        if not entry.secret:
            return None
        if entry.username == TOKEN_USER:
            return Credential("", entry.secret, CredentialKind.IDENTITY_TOKEN, origin=self.name)
        return Credential(entry.username, entry.secret, origin=self.name)

    async def store(self, server: str, username: str, secret: str) -> None:
        """Give it a credential to keep. CredentialError: it failed."""
        code, output = await self._run("store", msgspec.json.encode(_Stored(server, username, secret)))
        if code != 0:
            raise self._failed(code, output, Credential(username, secret))

    def _failed(self, code: int, output: bytes, credential: Credential | None = None) -> CredentialError:
        words = blotted(output.decode("utf-8", "replace").strip(), credential)
        said = f": {words}" if words else ""
        return CredentialError(f"{self.name} failed with exit code {code}{said}")

    async def _run(self, action: str, request: bytes) -> tuple[int, bytes]:
        return await run_program(self._program, [action], request, self._environment)
