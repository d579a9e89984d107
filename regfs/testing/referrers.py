"""The Referrers API of a `FakeRegistry`: OCI distribution-spec 1.1.1 (June 2025), "Listing Referrers"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from regfs.digest import Digest
from regfs.manifest import OCI_INDEX
from regfs.testing.behaviour import Behaviour, Paging
from regfs.testing.records import Request
from regfs.testing.replies import Reply, error_reply
from regfs.testing.store import Store, Stored, parsed_digest


def subject_of(raw: bytes) -> Digest | None:
    """The digest of the manifest that one refers to, if it does."""
    try:
        return parsed_digest(json.loads(raw)["subject"]["digest"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def descriptor_of(digest: Digest, stored: Stored) -> dict[str, object]:
    """A manifest as a list of referrers has it: with its ``artifactType`` (else its config's type) and annotations."""
    manifest = json.loads(stored.raw)
    kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
    plain = {"mediaType": stored.media_type, "digest": str(digest), "size": len(stored.raw)}
    more = {"artifactType": kind, "annotations": manifest.get("annotations")}
    return {**plain, **{key: value for key, value in more.items() if value}}


def referrers(request: Request, store: Store, behaviour: Behaviour, elsewhere: str) -> Reply:
    """One page of what refers to a manifest; an empty index where nothing does, or where there is none."""
    manifests = store.manifests(request.route.repository)
    if manifests is None:
        return error_reply(404, "NAME_UNKNOWN", "repository name not known to registry")
    subject = parsed_digest(request.route.reference)
    wanted = request.query.get("artifactType") if behaviour.referrers_filter else None
    found = [descriptor_of(d, stored) for d, stored in manifests.items() if subject_of(stored.raw) == subject]
    fitting = [entry for entry in found if wanted is None or entry.get("artifactType") == wanted]
    page, link = _page(request, fitting, behaviour, elsewhere)
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}).encode()
    headers = [("Content-Type", OCI_INDEX)]
    if wanted is not None:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if link:
        headers.append(("Link", f'<{link}>; rel="next"'))
    return Reply(200, headers, body)


def _page(
    request: Request, entries: Sequence[dict[str, Any]], behaviour: Behaviour, elsewhere: str
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The page that is asked for, and where its Link leads; empty: nowhere."""
    paging, size, start = behaviour.referrers_paging, behaviour.page_size, int(request.query.get("page", "0"))
    path = quote(request.path)
    kept = {key: request.query[key] for key in ("artifactType",) if key in request.query}
    following = f"{path}?{urlencode({**kept, 'page': start + 1})}"
    page = entries[start * size : (start + 1) * size]
    match paging:
        case Paging.WHOLE | Paging.CUT:
            return entries, ""
        case Paging.LOOP:
            return page, f"{path}?{urlencode({**kept, 'page': start})}"
        case Paging.EMPTY:
            return page, following
        case Paging.ENDLESS:
            return [_made_up(number) for number in range(start * size, (start + 1) * size)], following
        case Paging.FOREIGN:
            return page, f"{elsewhere}{following}"
    if (start + 1) * size >= len(entries):
        return page, ""
    scheme = "https" if behaviour.tls else "http"
    base = f"{scheme}://{request.headers['host']}" if paging is Paging.ABSOLUTE else ""
    return page, f"{base}{following}"


def _made_up(number: int) -> dict[str, object]:
    digest = str(Digest.of(str(number).encode()))
    return {"mediaType": OCI_INDEX, "digest": digest, "size": 2, "artifactType": "application/x-endless"}
