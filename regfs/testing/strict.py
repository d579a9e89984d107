"""What a good client never sends. Each rule names one thing; a `FakeRegistry` refuses such requests and keeps count."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from regfs.manifest import ACCEPT
from regfs.reference import is_repository, is_tag
from regfs.testing.behaviour import Auth, Behaviour, Challenges
from regfs.testing.records import Request
from regfs.testing.store import parsed_digest

_METHODS: Final = {
    "ping": {"GET", "HEAD"},
    "catalog": {"GET"},
    "tags": {"GET"},
    "manifest": {"GET", "HEAD", "PUT", "DELETE"},
    "blob": {"GET", "HEAD", "DELETE"},
    "upload": {"POST", "PATCH", "PUT", "GET", "DELETE"},
    "referrers": {"GET"},
    "token": {"GET", "POST"},
}
_BODIES: Final = frozenset({"POST", "PATCH", "PUT"})
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


def violations(request: Request, behaviour: Behaviour, blob_size: int | None) -> Iterator[str]:
    """What is wrong with a request, if anything. ``blob_size`` is that of the blob it asks for, where there is one."""
    yield from _headers(request)
    yield from _credentials(request, behaviour)
    if request.listener == "registry":
        yield from _path(request)
        yield from _method(request)
        yield from _names(request)
        yield from _accept(request)
        yield from _range(request, blob_size)


def _headers(request: Request) -> Iterator[str]:
    if not request.headers.get("user-agent"):
        yield "no User-Agent"
    host = request.headers.get("host", "").replace("localhost", "127.0.0.1")
    if host != request.authority:
        yield f"the Host is {host!r}, not {request.authority!r}"
    at_v2 = request.listener == "registry" and request.route.kind != "token"
    if at_v2 and request.headers.get("accept-encoding") != "identity":
        yield f"Accept-Encoding is {request.headers.get('accept-encoding')!r}, not 'identity'"
    if request.body and request.method not in _BODIES:
        yield f"a {request.method} with a body"


def _credentials(request: Request, behaviour: Behaviour) -> Iterator[str]:
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    if request.headers.get("cookie"):
        yield "a cookie"
    if behaviour.auth is Auth.KEY and request.listener != "registry" and _has_key(request, behaviour):
        yield "the key went to another host"
    if not scheme:
        return
    if request.listener.startswith("elsewhere"):
        yield f"{scheme} credentials went to another host"
    elif request.listener == "token" and scheme != "basic":
        yield f"{scheme} credentials went to the token endpoint"
    elif request.listener == "registry" and scheme not in _schemes(behaviour):
        yield f"{scheme} credentials, which no challenge asked for"


def _has_key(request: Request, behaviour: Behaviour) -> bool:
    return behaviour.key_header.lower() in request.headers


def _schemes(behaviour: Behaviour) -> set[str]:
    both = behaviour.challenges in (
        Challenges.BOTH_IN_ONE,
        Challenges.TWO_HEADERS,
        Challenges.RELATIVE,
        Challenges.OTHER_AFTER,
    )
    match behaviour.auth:
        case Auth.NONE | Auth.KEY:
            return set()
        case Auth.BASIC:
            return {"basic"}
        case Auth.BEARER:
            return {"bearer", "basic"} if both else {"bearer"}


def _path(request: Request) -> Iterator[str]:
    path = urlsplit(request.target).path
    if request.target.startswith("http"):
        yield "an absolute URL, as one sends it to a proxy"
    if "//" in path or "/./" in path or "/../" in path:
        yield f"a path that is not plain: {path[:200]}"
    if request.route.kind in ("own", "other"):
        yield f"a path that no registry has: {path[:200]}"


def _method(request: Request) -> Iterator[str]:
    allowed = _METHODS.get(request.route.kind)
    if allowed is not None and request.method not in allowed:
        yield f"{request.method} of a {request.route.kind}"


def _names(request: Request) -> Iterator[str]:
    kind, repository, reference = request.route.kind, request.route.repository, request.route.reference
    if repository and not is_repository(repository):
        yield f"not a repository's name: {repository[:100]!r}"
    if kind == "manifest" and not is_tag(reference) and parsed_digest(reference) is None:
        yield f"neither a tag nor a digest: {reference[:100]!r}"
    if kind in ("blob", "referrers") and parsed_digest(reference) is None:
        yield f"not a digest: {reference[:100]!r}"
    number = request.query.get("n")
    if kind in ("tags", "catalog") and number is not None and not re.fullmatch(r"[1-9]\d{0,8}", number):
        yield f"not a number of entries: n={number[:40]!r}"


def _accept(request: Request) -> Iterator[str]:
    if request.route.kind != "manifest" or request.method not in ("GET", "HEAD"):
        return
    accepted = {part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")}
    missing = [kind for kind in ACCEPT.split(", ") if kind not in accepted]
    if missing:
        yield f"a manifest is asked for without accepting {', '.join(missing)}"


def _range(request: Request, blob_size: int | None) -> Iterator[str]:
    text = request.headers.get("range")
    if text is None:
        return
    if request.route.kind != "blob" or request.method != "GET":
        yield f"a Range on a {request.method} of a {request.route.kind}"
        return
    match = _RANGE.fullmatch(text)
    if match is None:
        yield f"not one plain range: {text[:100]!r}"
    elif blob_size is not None:
        start, end = int(match[1]), int(match[2]) if match[2] else blob_size - 1
        if not start <= end < blob_size:
            yield f"a range past the end of {blob_size} bytes: {text[:100]!r}"
