"""Bodies of replies: whole and limited, piece by piece, or just what an error says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Final, cast

import httpx
import trio

from regfs.errors import DeadlineExceeded, RegfsError, TooLarge

WORDS_LIMIT: Final = 64 * 1024
"""The most bytes that are read of a body that only explains a status."""

_PATIENCE: Final = 5.0


class Stream:
    """A reply whose body arrives piece by piece; iterate over it once, within its context.

    Raises DeadlineExceeded when nothing arrives for the policy's ``stall_deadline``, ConnectionFailed when it breaks off.
    """

    def __init__(
        self,
        response: httpx.Response,
        url: str,
        *,
        stall: float,
        registry: str,
        failed: Callable[[], None],
    ) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._response = response
        self._stall = stall
        self._registry = registry
        self._failed = failed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(_pieces(self._response)) as pieces:
            while (piece := await self._next(pieces)) is not None:
                yield piece

    async def _next(self, pieces: AsyncGenerator[bytes, None]) -> bytes | None:
        try:
            with trio.move_on_after(self._stall):
                return await anext(pieces, None)
            raise DeadlineExceeded(
                f"{self._registry} sent nothing for {self._stall:g} seconds", registry=self._registry
            )
        except RegfsError:
            self._failed()
            raise


async def read_whole(response: httpx.Response, limit: int, what: str) -> bytes:
    """Read a body of at most ``limit`` bytes. Raises TooLarge, before the first byte where the length is announced."""
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > limit and response.request.method != "HEAD":
        raise TooLarge(f"{what} is larger than {limit} bytes")
    body = bytearray()
    async with aclosing(_pieces(response)) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > limit:
                raise TooLarge(f"{what} is larger than {limit} bytes")
    return bytes(body)


async def read_words(response: httpx.Response) -> bytes:
    """Read what an error's body says; whatever goes wrong there must not hide the status."""
    if response.status_code == 416:
        return b""  # distribution 2.8 announces the blob's length and sends no body
    body = bytearray()
    with trio.move_on_after(_PATIENCE):
        try:
            async with aclosing(_pieces(response)) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > WORDS_LIMIT:
                        break
        except (RegfsError, httpx.HTTPError, httpx.StreamError):
            pass
    return bytes(body[:WORDS_LIMIT])


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    if response.is_stream_consumed:  # an auth flow wanted to know what a 401 says
        yield response.content
        return
    async with aclosing(cast("AsyncGenerator[bytes, None]", response.aiter_raw())) as pieces:
        async for piece in pieces:
            yield piece
