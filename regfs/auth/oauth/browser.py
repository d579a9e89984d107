"""The authorization code flow with PKCE, on a loopback redirect (RFC 6749, 4.1; RFC 7636; RFC 8252, 7.3)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import trio

from regfs.auth.oauth.asking import tokens_for
from regfs.auth.oauth.grant import Tokens
from regfs.auth.oauth.messages import (
    ClientAuth,
    OAuthError,
    authorization_url,
    by_code,
    pkce,
    shown_url,
)
from regfs.auth.words import blotted
from regfs.errors import NotSignedIn
from regfs.ports import Exchange, OAuthServer, Person
from regfs.redaction import register_secret

PATIENCE: Final = 600.0
"""Seconds that a person has: RFC 6749, 4.1.2 lets codes live as long."""
_HEAD: Final = 16 * 1024
_SLOW: Final = 10.0
_DONE: Final = "You are signed in, and regfs goes on. This page can be closed."
_REFUSED: Final = "You are not signed in: the sign-in was refused. This page can be closed."
_STRAY: Final = "This is no answer to the sign-in that regfs waits for."


async def sign_in(
    server: OAuthServer, client: ClientAuth, exchange: Exchange, person: Person
) -> tuple[Tokens, ClientAuth]:
    """Carry it out. Raises NotSignedIn where the person refuses or does not come, OAuthError for any other refusal."""
    state, (verifier, challenge) = secrets.token_urlsafe(32), pkce()
    register_secret(verifier)
    async with _listening(state, server.issuer) as (redirect_uri, answers):
        endpoint = shown_url(server.authorization_endpoint, server.token_endpoint)
        person.show_link(
            authorization_url(endpoint, client.client_id, redirect_uri, server.scopes, state, challenge)
        )
        person.tell(
            "Waiting for your browser to come back. Where it runs on another machine, it ends at an address that "
            f"begins with {redirect_uri} and shows nothing: fetch that address here, with curl."
        )
        with trio.move_on_after(PATIENCE) as limit:
            answer = await answers.receive()
    if limit.cancelled_caught:
        raise NotSignedIn("nobody came back from the browser in time; run the same command again")
    code = _code(answer)
    register_secret(code)
    return await tokens_for(
        exchange, client, lambda who: by_code(server.token_endpoint, who, code, redirect_uri, verifier)
    )


def _code(answer: Mapping[str, str]) -> str:
    if error := answer.get("error", ""):
        words = blotted(answer.get("error_description", ""))
        if error == "access_denied":
            raise NotSignedIn("the sign-in was refused there", words=words)
        raise OAuthError(blotted(error), words)
    return answer["code"]


@asynccontextmanager
async def _listening(
    state: str, issuer: str
) -> AsyncIterator[tuple[str, trio.MemoryReceiveChannel[Mapping[str, str]]]]:
    """A server on a free port of the loopback address that takes the one answer which bears our state, and ends."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    send, receive = trio.open_memory_channel[Mapping[str, str]](1)

    async def serve(stream: trio.SocketStream) -> None:
        answer = None
        with trio.move_on_after(_SLOW), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            answer = _answer(await _head(stream), port, state, issuer)
            await stream.send_all(_page(answer))
        await trio.aclose_forcefully(stream)
        if answer is not None and not receive.statistics().current_buffer_used:
            send.send_nowait(answer)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, [listener])
        try:
            yield f"http://127.0.0.1:{port}/", receive
        finally:
            nursery.cancel_scope.cancel()


async def _head(stream: trio.SocketStream) -> bytes:
    """A request's head; whatever is longer, or no request, is cut off."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD:
        piece = await stream.receive_some(4096)
        if not piece:
            break
        head += piece
    return head


def _answer(head: bytes, port: int, state: str, issuer: str) -> Mapping[str, str] | None:
    """What a request says, if it is the browser's coming back from our sign-in: our path, our host, our state.

    RFC 9207: an ``iss`` that is another's shows that the code is another server's.
    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    hosts = [line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("host:")]
    if len(words) != 3 or words[0] != "GET" or hosts != [f"127.0.0.1:{port}"]:
        return None
    try:
        target = urlsplit(words[1])
        answer = dict(parse_qsl(target.query, max_num_fields=50))
    except ValueError:
        return None
    if target.path != "/" or not ("code" in answer or "error" in answer):
        return None
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        return None
    return None if issuer and answer.get("iss", issuer) != issuer else answer


def _page(answer: Mapping[str, str] | None) -> bytes:
    text = _STRAY if answer is None else _DONE if "code" in answer else _REFUSED
    body = f"<!doctype html><title>regfs</title><p>{text}</p>\n".encode()
    status = "400 Bad Request" if answer is None else "200 OK"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Content-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
