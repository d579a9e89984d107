"""What a `FakeRegistry` answers under ``/v2/``: pure functions of its store, its behaviour and the request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from urllib.parse import urlsplit

from regfs.digest import Digest
from regfs.testing.behaviour import Behaviour, DigestDelete, DigestHeader, TagDelete
from regfs.testing.listings import listing
from regfs.testing.records import Request
from regfs.testing.referrers import referrers
from regfs.testing.replies import Reply, code_of, error_reply, json_reply
from regfs.testing.store import Store, parsed_digest
from regfs.testing.writes import Writes

_WRONG_DIGEST = f"sha256:{'0' * 64}"


@dataclass
class Handlers:
    """The registry's answers. ``planted`` replies stand in place of the real ones, by repository and reference."""

    store: Store
    behaviour: Behaviour
    elsewhere: Callable[[], str]
    planted: dict[tuple[str, str], Reply] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._writes = Writes(self.store, self.behaviour)

    def answer(self, request: Request) -> Reply:
        """The reply to a request that is allowed and well formed."""
        if request.method == "HEAD" and not self.behaviour.head:
            return error_reply(405, "UNSUPPORTED")
        reference = request.route.reference
        if (request.route.kind == "blob" or ":" in reference) and parsed_digest(reference) is None:
            return error_reply(400, "DIGEST_INVALID")
        match request.route.kind:
            case "ping":
                return json_reply({}, 200, ("Docker-Distribution-Api-Version", "registry/2.0"))
            case "catalog":
                return self._catalog(request)
            case "tags":
                return self._tags(request)
            case "manifest":
                return self._manifest(request)
            case "blob":
                return self._blob(request)
            case "upload":
                return self._writes.upload(request)
            case "referrers":
                return self._referrers(request)
            case _:
                return Reply(404, [("Content-Type", "text/plain")], b"404 page not found\n")

    # ── listings ─────────────────────────────────────────────────────────────────────────────────

    def _catalog(self, request: Request) -> Reply:
        behaviour = self.behaviour
        if behaviour.catalog_status != 200:
            return error_reply(behaviour.catalog_status, code_of(behaviour.catalog_status), "not for you")
        limit = behaviour.catalog_limit
        if limit is not None and int(request.query.get("n", "0")) > limit:
            return error_reply(400, "PAGINATION_NUMBER_INVALID")
        names = self.store.repositories()
        return listing(
            request, names, behaviour.catalog_paging, behaviour, self.elsewhere(), ("repositories", {})
        )

    def _tags(self, request: Request) -> Reply:
        repository = request.route.repository
        if self.behaviour.redirect_tags:
            return self._redirect(request, self.behaviour.redirect_tags)
        tags = self.store.tags(repository)
        names = [*(tags or ()), *self.behaviour.listed_names]
        if tags is None or (not names and not self.behaviour.emptied_is_null):
            return error_reply(404, "NAME_UNKNOWN", "repository name not known to registry")
        if not names:
            return json_reply({"name": repository, "tags": None})
        member = ("tags", {"name": repository})
        return listing(request, names, self.behaviour.tag_paging, self.behaviour, self.elsewhere(), member)

    def _referrers(self, request: Request) -> Reply:
        planted = self.planted.get((request.route.repository, f"referrers/{request.route.reference}"))
        if planted is not None:
            return planted
        status = self.behaviour.referrers_status
        if status == 303:
            return Reply(303, [("Location", f"{self.elsewhere()}/-/v2/packages/container/package/x")])
        if status == 404:
            return Reply(404, [("Content-Type", "text/plain; charset=utf-8")], b"404 page not found\n")
        if status != 200:
            return error_reply(status, code_of(status))
        return referrers(request, self.store, self.behaviour, self.elsewhere())

    # ── manifests ────────────────────────────────────────────────────────────────────────────────

    def _manifest(self, request: Request) -> Reply:
        repository, reference = request.route.repository, request.route.reference
        if request.method == "PUT":
            return self._writes.put_manifest(request)
        if request.method == "DELETE":
            return self._delete_manifest(request)
        planted = self.planted.get((repository, reference))
        if planted is not None:
            return planted
        if self.behaviour.redirect_manifests:
            return self._redirect(request, self.behaviour.redirect_manifests)
        return self._stored_manifest(repository, reference)

    def _stored_manifest(self, repository: str, reference: str) -> Reply:
        found = self.store.find(repository, _reference(reference))
        if found is None:
            return error_reply(404, "MANIFEST_UNKNOWN", "manifest unknown")
        digest, stored = found
        headers = [("ETag", f'"{digest}"')]
        said = self.behaviour.content_type
        if said != "":
            headers.append(("Content-Type", stored.media_type if said is None else said))
        if self.behaviour.digest_header is not DigestHeader.ABSENT:
            wrong = self.behaviour.digest_header is DigestHeader.WRONG
            headers.append(("Docker-Content-Digest", _WRONG_DIGEST if wrong else str(digest)))
        return Reply(200, headers, stored.raw)

    def _delete_manifest(self, request: Request) -> Reply:
        repository, reference = request.route.repository, _reference(request.route.reference)
        if not self.behaviour.deletion:
            return error_reply(405, "UNSUPPORTED", "The operation is unsupported.")
        if isinstance(reference, str):
            return self._delete_tag(repository, reference)
        if self.store.find(repository, reference) is None:
            return error_reply(404, "MANIFEST_UNKNOWN", "unknown manifest")
        with_tags = self.behaviour.digest_delete is DigestDelete.WITH_TAGS
        self.store.remove_manifest(repository, reference, with_tags=with_tags)
        return Reply(202)

    def _delete_tag(self, repository: str, tag: str) -> Reply:
        way = self.behaviour.tag_delete
        if way is TagDelete.DIGEST_INVALID:
            return error_reply(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if way is TagDelete.UNSUPPORTED:
            return error_reply(405, "UNSUPPORTED", "The operation is unsupported.")
        found = self.store.find(repository, tag)
        if found is None:
            return error_reply(404, "MANIFEST_UNKNOWN", "unknown tag")
        if way is TagDelete.TAKES_SIBLINGS:
            self.store.remove_manifest(repository, found[0], with_tags=True)
        else:
            self.store.remove_tag(repository, tag)
        return Reply(204 if way is TagDelete.NO_CONTENT else 202)

    # ── blobs ────────────────────────────────────────────────────────────────────────────────────

    def _blob(self, request: Request) -> Reply:
        repository, digest = request.route.repository, Digest.parse(request.route.reference)
        data = self.store.blob(repository, digest)
        if data is None:
            return error_reply(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if request.method == "DELETE":
            return error_reply(405, "UNSUPPORTED")
        if self.behaviour.redirect_blobs:
            return self._redirect(request, self.behaviour.redirect_blobs)
        return blob_reply(data, request.headers.get("range"), self.behaviour.ranges, str(digest))

    def _redirect(self, request: Request, target: str) -> Reply:
        base = {"elsewhere": self.elsewhere(), "loop": ""}.get(target, target)
        query = (
            "" if target == "loop" else f"?X-Signature=a-signature-that-is-a-secret&X-Signed={monotonic()}"
        )
        return Reply(307, [("Location", f"{base}{urlsplit(request.target).path}{query}")])

    def answer_elsewhere(self, request: Request) -> Reply:
        """What the other host has: the blobs and manifests that requests are redirected to."""
        lifetime = self.behaviour.redirect_lifetime
        if lifetime is not None and monotonic() > float(request.query.get("X-Signed", "0")) + lifetime:
            return error_reply(403, "DENIED", "the URL has expired")
        if request.route.kind == "manifest":
            return self._stored_manifest(request.route.repository, request.route.reference)
        data = None
        if request.route.kind == "blob":
            data = self.store.blob(request.route.repository, Digest.parse(request.route.reference))
        if data is None:
            return error_reply(404, "NAME_UNKNOWN")
        return blob_reply(data, request.headers.get("range"), self.behaviour.ranges, "")


def blob_reply(data: bytes, wanted: str | None, ranges: bool, digest: str) -> Reply:
    """A blob, or the range of it that is wanted: 206, 416 past its end, 200 where ranges are not honoured."""
    headers = [("Content-Type", "application/octet-stream")]
    if digest:
        headers.append(("Docker-Content-Digest", digest))
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if match is None or not ranges:
        return Reply(200, headers, data)
    start, end = int(match[1]), int(match[2] or len(data) - 1)
    if not start <= end < len(data):
        return Reply(416, [("Content-Range", f"bytes */{len(data)}")])
    headers.append(("Content-Range", f"bytes {start}-{end}/{len(data)}"))
    return Reply(206, headers, data[start : end + 1])


def _reference(text: str) -> str | Digest:
    return Digest.parse(text) if ":" in text else text
