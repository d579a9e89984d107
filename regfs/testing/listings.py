"""Listings of a `FakeRegistry`, cut into pages in each of the ways that registries do it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from regfs.testing.behaviour import Behaviour, Order, Paging
from regfs.testing.records import Request
from regfs.testing.replies import Reply, json_reply


def in_order(names: Sequence[str], order: Order) -> list[str]:
    """The names in the order that the registry has; the random one is the same at each request."""
    match order:
        case Order.SORTED:
            return sorted(names)
        case Order.REVERSED:
            return sorted(names, reverse=True)
        case Order.RANDOM:
            return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        case Order.PUSHED:
            return list(names)


def listing(
    request: Request,
    names: Sequence[str],
    paging: Paging,
    behaviour: Behaviour,
    elsewhere: str,
    member: tuple[str, dict[str, str]],
) -> Reply:
    """One page. ``member`` is the list's name in the JSON, and what stands beside it; ``elsewhere`` a foreign URL."""
    key, beside = member
    ordered = in_order(names, behaviour.order)
    if paging is Paging.WHOLE:
        return json_reply({**beside, key: ordered})
    page, more = _page(request, ordered, paging, behaviour)
    reply = json_reply({**beside, key: page})
    if paging is not Paging.CUT and more:
        link = _link(request, page, paging, behaviour, elsewhere)
        reply.headers.append(("Link", f'<{link}>; rel="next"'))
    return reply


def _page(request: Request, names: list[str], paging: Paging, behaviour: Behaviour) -> tuple[list[str], bool]:
    """The page's names, and whether another one is said to follow."""
    size = min(int(request.query.get("n", behaviour.page_size)), behaviour.page_size)
    if paging is Paging.CUT:
        size = int(request.query.get("n", len(names)))
    last = request.query.get("last")
    if paging is Paging.ENDLESS:
        start = int(request.query.get("page", "0")) * size
        return [f"endless-{number}" for number in range(start, start + size)], True
    if paging is Paging.EMPTY:
        return ([] if last else names[:size]), True
    start = 0 if paging is Paging.LOOP else _after(names, last, paging, behaviour.order)
    return names[start : start + size], paging is Paging.LOOP or start + size < len(names)


def _after(names: list[str], last: str | None, paging: Paging, order: Order) -> int:
    if last is None:
        return 0
    if last in names:
        return names.index(last) + 1
    if paging is Paging.CUT or order is not Order.SORTED:
        return 0
    return sum(name <= last for name in names)


def _link(request: Request, page: list[str], paging: Paging, behaviour: Behaviour, elsewhere: str) -> str:
    path = quote(request.path)
    query: dict[str, str | int] = {"n": request.query.get("n", behaviour.page_size)}
    match paging:
        case Paging.LOOP:
            return f"{path}?{urlencode(query)}"
        case Paging.ENDLESS:
            query["page"] = int(request.query.get("page", "0")) + 1
        case Paging.EMPTY:
            query["last"] = f"nothing-{int(request.query.get('last', 'x-0').rpartition('-')[2] or 0) + 1}"
        case _:
            query["last"] = page[-1]
    scheme = "https" if behaviour.tls else "http"
    base = {Paging.ABSOLUTE: f"{scheme}://{request.headers['host']}", Paging.FOREIGN: elsewhere}.get(
        paging, ""
    )
    return f"{base}{path}?{urlencode(query)}"
