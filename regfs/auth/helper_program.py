"""Docker's credential helpers: programs ``docker-credential-SUFFIX`` that keep secrets for others.

Protocol: docker/docker-credential-helpers. ``get`` and ``erase`` read a server's URL, ``store`` reads JSON; failures
are exit code 1 with the reason on standard output.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from regfs.auth.validity import TOKEN_USER
from regfs.auth.words import blotted
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

DEADLINE: Final = 10.0
MAX_OUTPUT: Final = 64 * 1024

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
        self._program = _on_path(self.name, self._environment.get("PATH", os.defpath))

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
        """Exit code and output. The secret goes through a pipe; standard error is not ours to show."""
        try:
            process = await trio.lowlevel.open_process(
                [str(self._program), action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise CredentialError(f"{self.name} cannot be started: {error.strerror}") from error
        ended = False
        try:
            with trio.fail_after(DEADLINE):
                output = await _talk(process, request)
                code = await process.wait()
                ended = True
                return code, output
        except trio.TooSlowError:
            raise CredentialError(f"{self.name} gave no answer within {DEADLINE:.0f} s") from None
        except _TooMuchError:
            raise CredentialError(f"{self.name} wrote more than {MAX_OUTPUT // 1024} KiB") from None
        finally:
            await _end(process, kill=not ended)


class _TooMuchError(Exception):
    """More output than a credential can be."""


async def _talk(process: trio.Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    # A helper may answer without reading; what it then says counts, not the pipe that it closed.
    with suppress(trio.BrokenResourceError):
        async with process.stdin:
            await process.stdin.send_all(request)
    output = bytearray()
    async for chunk in process.stdout:
        output += chunk
        if len(output) > MAX_OUTPUT:
            raise _TooMuchError
    return bytes(output)


async def _end(process: trio.Process, *, kill: bool) -> None:
    """Close our ends of the pipes; end a program that did not, and what it started (they are a session of their own)."""
    with trio.CancelScope(shield=True):
        if kill:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()


def _on_path(name: str, path: str) -> Path:
    """Where a program is. Entries of PATH that are not absolute would run whatever the current folder holds."""
    for entry in path.split(os.pathsep):
        program = Path(entry) / name
        if program.is_absolute() and program.is_file() and os.access(program, os.X_OK):
            return program
    raise CredentialError(f"{name} is not on PATH")
