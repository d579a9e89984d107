"""Reading replies within limits, and giving their connections back at once."""

from __future__ import annotations

from typing import Final

import httpx

from regfs.auth.tokens import Ask, TokenReply
from regfs.errors import BadReply

MAX_BODY: Final = 64 * 1024
"""Bytes of a token endpoint's reply, and of a 401, that are read; real ones are under 8 KiB."""


async def token_reply(response: httpx.Response, ask: Ask) -> TokenReply:
    """Read a token endpoint's reply. BadReply where a token reply is over the limit."""
    body = await drained(response)
    if len(body) > MAX_BODY and response.status_code == 200:
        raise BadReply(f"the token endpoint {ask.host} gave a reply of more than {MAX_BODY // 1024} KiB")
    return TokenReply(response.status_code, response.headers, body)


async def drained(response: httpx.Response) -> bytes:
    """Read a reply's body, a little more than the limit at most, and free its connection for the next request.

    httpx itself reads a reply that a flow goes on from, to its end, whatever its length: it finds only what is left here.
    """
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        return b""
    body = bytearray()
    try:
        async for chunk in stream:
            body += chunk
            if len(body) > MAX_BODY:
                break
    except httpx.RequestError as error:
        error.request = response.request
        raise
    finally:
        await stream.aclose()
    # What is left is no longer as it was encoded: a small body could unpack to a large one.
    response.headers.pop("Content-Encoding", None)
    response.stream = httpx.ByteStream(bytes(body[: MAX_BODY + 1]))
    return bytes(body)
