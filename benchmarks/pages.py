"""A registry of many tags that answers in pages: Docker's own gives all tags at once, whatever page one asks for.

Run as a program (``python -m benchmarks.pages TAGS PAGE``) it prints its port, and serves until it is ended. All its
answers are made beforehand, so that what is timed is its clients.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final

REPOSITORY: Final = "team/app"
TAGS_PATH: Final = f"/v2/{REPOSITORY}/tags/list"

Answers = dict[str, bytes]
"""Target (path and query) → the whole reply as it goes over the wire."""


def page_target(number: int, size: int) -> str:
    """The target of a page of tags, the first being number 0: what `Link` names, and what one asks for."""
    return f"{TAGS_PATH}?n={size}" + (f"&last={tag_name(number * size - 1)}" if number else "")


def tag_name(number: int) -> str:
    """The tags' names, which sort as they are numbered."""
    return f"build-{number:06d}"


def make_answers(tags: int, size: int) -> Answers:
    """All that this registry ever says."""
    answers = {"/v2/": _reply(b"{}"), "/v2/_catalog?n=1000": _reply(_json({"repositories": [REPOSITORY]}))}
    for number in range(-(-tags // size)):
        names = [tag_name(tag) for tag in range(number * size, min(tags, (number + 1) * size))]
        last = (number + 1) * size >= tags
        link = "" if last else f'Link: <{page_target(number + 1, size)}>; rel="next"\r\n'
        answers[page_target(number, size)] = _reply(_json({"name": REPOSITORY, "tags": names}), link)
    return answers


async def serve(answers: Answers) -> None:
    """Serve on a free port of the loopback address, which is printed once connections are accepted."""
    missing = _reply(
        _json({"errors": [{"code": "NAME_UNKNOWN", "message": "not here"}]}), status="404 Not Found"
    )
    beyond = _reply(_json({"name": REPOSITORY, "tags": []}))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                target = request.split(b" ", 2)[1].decode()
                # A client that looks past the last page finds an empty one, as it does elsewhere.
                writer.write(answers.get(target) or (beyond if target.startswith(TAGS_PATH) else missing))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _reply(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    asyncio.run(serve(make_answers(int(sys.argv[1]), int(sys.argv[2]))))
