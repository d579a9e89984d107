"""What a `FakeRegistry` does with what it is sent: manifests, and uploads of blobs (distribution-spec, "Push")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from regfs.digest import Digest
from regfs.testing.behaviour import Behaviour
from regfs.testing.records import Request
from regfs.testing.referrers import subject_of
from regfs.testing.replies import Reply, error_reply
from regfs.testing.store import Store, Stored, parsed_digest


@dataclass
class Writes:
    """The registry's answers to requests that bring content."""

    store: Store
    behaviour: Behaviour

    def put_manifest(self, request: Request) -> Reply:
        """201; 400 for what is no manifest, has another type than it says, or names what is not there."""
        repository, reference = request.route.repository, request.route.reference
        media_type = request.headers.get("content-type", "").partition(";")[0]
        fault = self._fault(repository, request.body, media_type)
        digest = Digest.of(request.body)
        if fault is None and ":" in reference and reference != str(digest):
            fault = error_reply(400, "DIGEST_INVALID")
        if fault is not None:
            return fault
        tag = None if ":" in reference else reference
        self.store.put(repository, tag, digest, Stored(request.body, media_type))
        location = f"{self._base(request)}/{repository}/manifests/{digest}"
        headers = [("Location", location), ("Docker-Content-Digest", str(digest))]
        subject = subject_of(request.body)
        if subject is not None and self.behaviour.referrers_status == 200:
            headers.append(("OCI-Subject", str(subject)))
        return Reply(201, headers)

    def upload(self, request: Request) -> Reply:
        """Begin, continue, ask about or finish the upload of a blob."""
        repository, upload = request.route.repository, request.route.reference
        if request.method == "POST":
            return self._begin(request)
        size = self.store.append(repository, upload, request.body if request.method != "GET" else b"")
        if size is None:
            return error_reply(404, "BLOB_UPLOAD_UNKNOWN")
        match request.method:
            case "PUT":
                return self._finish(request, upload)
            case "PATCH":
                return self._session(request, upload, 202, size)
            case "GET":
                return self._session(request, upload, 204, size)
            case _:
                self.store.finish_upload(upload)
                return Reply(204)

    def _begin(self, request: Request) -> Reply:
        repository, query = request.route.repository, request.query
        if "mount" in query:
            digest = parsed_digest(query["mount"])
            data = self.store.blob(query.get("from", ""), digest) if digest else None
            if digest is not None and data is not None:
                self.store.put_blob(repository, digest, data)
                return self._created(request, digest)
        upload = self.store.begin_upload(repository)
        if "digest" in query:
            self.store.append(repository, upload, request.body)
            return self._finish(request, upload)
        return self._session(request, upload, 202, 0)

    def _finish(self, request: Request, upload: str) -> Reply:
        data, digest = self.store.finish_upload(upload), parsed_digest(request.query.get("digest", ""))
        if digest is None or Digest.of(data, digest.algorithm) != digest:
            return error_reply(400, "DIGEST_INVALID")
        self.store.put_blob(request.route.repository, digest, data)
        return self._created(request, digest)

    def _created(self, request: Request, digest: Digest) -> Reply:
        location = f"{self._base(request)}/{request.route.repository}/blobs/{digest}"
        return Reply(201, [("Location", location), ("Docker-Content-Digest", str(digest))])

    def _session(self, request: Request, upload: str, status: int, size: int) -> Reply:
        location = f"{self._base(request)}/{request.route.repository}/blobs/uploads/{upload}?_state=kept"
        return Reply(status, [("Location", location), ("Range", f"0-{max(size - 1, 0)}")])

    def _fault(self, repository: str, raw: bytes, media_type: str) -> Reply | None:
        try:
            manifest = json.loads(raw)
        except (ValueError, RecursionError):
            return error_reply(400, "MANIFEST_INVALID", "not JSON")
        if not isinstance(manifest, dict) or manifest.get("mediaType", media_type) != media_type:
            return error_reply(400, "MANIFEST_INVALID", "another type than Content-Type says")
        missing = None if self.behaviour.dangling else next(self._missing(repository, manifest), None)
        return error_reply(400, "MANIFEST_BLOB_UNKNOWN", missing) if missing else None

    def _missing(self, repository: str, manifest: dict[str, Any]) -> Iterator[str]:
        blobs = [manifest["config"]] if "config" in manifest else []
        for entry in [*blobs, *manifest.get("layers", [])]:
            if self.store.blob(repository, Digest.parse(entry["digest"])) is None:
                yield entry["digest"]
        for entry in manifest.get("manifests", []):
            if self.store.find(repository, Digest.parse(entry["digest"])) is None:
                yield entry["digest"]

    def _base(self, request: Request) -> str:
        return urlsplit(request.target).path.partition("/v2/")[0] + "/v2"
