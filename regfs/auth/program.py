"""Running another program that knows a secret: no shell, an absolute path, a deadline, a limit, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from regfs.errors import CredentialError

DEADLINE: Final = 10.0
"""Seconds that a program may take."""
MAX_OUTPUT: Final = 64 * 1024
"""Bytes that it may write."""


def on_path(name: str, path: str) -> Path:
    """Where a program is. Entries of PATH that are not absolute would run whatever the current folder holds."""
    for entry in path.split(os.pathsep):
        program = Path(entry) / name
        if program.is_absolute() and program.is_file() and os.access(program, os.X_OK):
            return program
    raise CredentialError(f"{name} is not on PATH")


async def run_program(
    program: Path, arguments: Sequence[str], request: bytes, environment: Mapping[str, str]
) -> tuple[int, bytes]:
    """Exit code and standard output. CredentialError: it cannot be started, is too slow, or says too much.

    ``request`` goes through a pipe, never on the command line; standard error is not ours to show.
    """
    name = program.name
    try:
        process = await trio.lowlevel.open_process(
            [str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        raise CredentialError(f"{name} cannot be started: {error.strerror}") from error
    ended = False
    try:
        with trio.fail_after(DEADLINE):
            output = await _talk(process, request)
            code = await process.wait()
            ended = True
            return code, output
    except trio.TooSlowError:
        raise CredentialError(f"{name} gave no answer within {DEADLINE:.0f} s") from None
    except _TooMuchError:
        raise CredentialError(f"{name} wrote more than {MAX_OUTPUT // 1024} KiB") from None
    finally:
        await _end(process, kill=not ended)


class _TooMuchError(Exception):
    """More output than a credential can be."""


async def _talk(process: trio.Process, request: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    # A program may answer without reading; what it then says counts, not the pipe that it closed.
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
