"""A registry and a journal as plain dicts, which do the steps of a deletion; and what can go wrong at a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from regfs.digest import Digest
from regfs.errors import ConnectionFailed, RegfsError
from regfs.manifest import OCI_MANIFEST
from regfs.reference import TagOrDigest
from regfs.registry.journal import Entry
from regfs.registry.replies import Reply, error_for
from regfs.registry.steps import (
    DeleteManifest,
    Erase,
    Fetch,
    FindSiblings,
    Flow,
    Learn,
    ListTags,
    PutManifest,
    Record,
    Resolve,
    Saved,
    Siblings,
    Standing,
    Step,
    Wish,
)

T = TypeVar("T")


class Killed(BaseException):
    """The process is killed."""


class Way(Enum):
    """How a registry answers ``DELETE manifests/TAG``."""

    UNTAGS = "untags"
    UNTAGS_AND_COLLECTS = "untags, and drops a manifest without tags"
    TAKES_SIBLINGS = "deletes the manifest and all its tags"
    BAD_REQUEST = "400 DIGEST_INVALID"
    NOT_ALLOWED = "405 UNSUPPORTED"
    NOT_FOUND = "404 for any tag"
    FORBIDDEN = "403"
    DENIED = "400 DENIED"
    PRETENDS = "200, and does nothing"


class Fault(Enum):
    """What happens to one step that talks to the registry."""

    LOST_REQUEST = "the connection fails before the registry has it"
    LOST_REPLY = "the connection fails after the registry has done it"
    SERVER_ERROR = "500"
    RATE_LIMITED = "429"
    UNAUTHORIZED = "401"


def manifest(text: str) -> bytes:
    """A manifest, as far as this model looks into one."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "text": text}).encode()


@dataclass
class Model:
    """What the registry has, and what is on disk; ``done`` are the steps so far."""

    way: Way = Way.UNTAGS
    deletes_digests: bool = True
    takes_indexes: bool = True
    looks_at: int = 256
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    journal: dict[str, Entry] = field(default_factory=dict)
    learnt: list[Standing] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)

    def push(self, tag: str, raw: bytes) -> Digest:
        """Somebody pushes a manifest to a tag."""
        digest = Digest.of(raw)
        self.manifests[digest] = raw
        self.tags[tag] = digest
        return digest

    def find(self, reference: TagOrDigest) -> Digest | None:
        """Where a reference leads."""
        digest = self.tags.get(reference) if isinstance(reference, str) else reference
        return digest if digest in self.manifests else None

    def perform(self, step: Step) -> object:
        """Do one step, as a driver does."""
        self.done.append(step)
        match step:
            case Resolve():
                return self.find(step.reference)
            case Fetch():
                return self._fetch(step)
            case FindSiblings():
                return self._siblings(step)
            case ListTags():
                return frozenset(self.tags)
            case DeleteManifest():
                return self._answered(self._delete(step.reference))
            case PutManifest():
                return self._answered(self._put(step))
            case Record():
                self.journal[step.entry.id] = step.entry
            case Erase():
                self.journal.pop(step.entry.id, None)
            case Learn():
                self.learnt.append(step.standing)
        return None

    def _siblings(self, step: FindSiblings) -> Siblings:
        same = sorted(t for t, digest in self.tags.items() if digest == step.digest and t != step.tag)
        known = same[: self.looks_at]
        return Siblings(tuple(known), frozenset(self.tags) - {step.tag, *known})

    def _fetch(self, step: Fetch) -> Saved:
        digest = self.find(step.tag)
        if digest is None:
            raise error_for(reply(404), "registry", step.tag)
        return Saved(self.manifests[digest], OCI_MANIFEST, digest)

    def _delete(self, reference: TagOrDigest) -> Reply:
        if isinstance(reference, str):
            return self._delete_tag(reference)
        if not self.deletes_digests:
            return reply(405, "UNSUPPORTED")
        if reference not in self.manifests:
            return reply(404, "MANIFEST_UNKNOWN")
        self._drop(reference)
        return reply(202)

    def _delete_tag(self, tag: str) -> Reply:
        refusals = {
            Way.BAD_REQUEST: reply(400, "DIGEST_INVALID"),
            Way.NOT_ALLOWED: reply(405, "UNSUPPORTED"),
            Way.NOT_FOUND: reply(404, "MANIFEST_UNKNOWN"),
            Way.FORBIDDEN: reply(403, "DENIED"),
            Way.DENIED: reply(400, "DENIED"),
            Way.PRETENDS: reply(200),
        }
        if self.way in refusals:
            return refusals[self.way]
        digest = self.find(tag)
        if digest is None:
            return reply(404, "MANIFEST_UNKNOWN")
        del self.tags[tag]
        collects = self.way is Way.UNTAGS_AND_COLLECTS and digest not in self.tags.values()
        if self.way is Way.TAKES_SIBLINGS or collects:
            self._drop(digest)
        return reply(202)

    def _drop(self, digest: Digest) -> None:
        del self.manifests[digest]
        self.tags = {tag: other for tag, other in self.tags.items() if other != digest}

    def _put(self, step: PutManifest) -> Reply:
        if not self.takes_indexes and b'"manifests"' in step.raw:
            return reply(400, "MANIFEST_INVALID")
        self.push(step.tag, step.raw)
        return reply(201)

    def _answered(self, answer: Reply) -> Reply:
        """As the client does: what a flow does not decide about is raised."""
        if answer.status in (401, 403, 408, 429) or answer.status >= 500:
            raise error_for(answer, "registry", "deleting")
        return answer


def reply(status: int, code: str = "") -> Reply:
    """A reply with the spec's errors document, where there is a code."""
    body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode() if code else b""
    return Reply(status, {}, body, "http://registry/v2/")


def wish(seen: Digest | None = None, *, tag: str = "v1", **more: object) -> Wish:
    """A wish to delete ``team/app:v1``."""
    return Wish("registry", "team/app", tag, seen, Digest.of(b"made up"), "a mark", **more)  # type: ignore[arg-type]


def failing(model: Model, fault: Fault) -> Callable[[Step], object]:
    """Do a step as it goes when the network or the registry fails at it."""

    def perform(step: Step) -> object:
        if isinstance(step, Record | Erase | Learn):
            return model.perform(step)
        if fault is Fault.LOST_REPLY:
            model.perform(step)
        else:
            model.done.append(step)
        statuses = {Fault.SERVER_ERROR: 500, Fault.RATE_LIMITED: 429, Fault.UNAUTHORIZED: 401}
        if fault in statuses:
            raise error_for(reply(statuses[fault]), "registry", "a step")
        raise ConnectionFailed("the connection was lost")

    return perform


def drive(
    flow: Flow[T],
    model: Model,
    *,
    at: dict[int, Callable[[Step], object]] | None = None,
    between: Callable[[int], None] = lambda _: None,
) -> T:
    """Drive a flow to its end. ``at`` does certain steps otherwise; ``between`` is called before each step."""
    answer: object = None
    error: RegfsError | None = None
    number = 0
    try:
        while True:
            try:
                step = flow.send(answer) if error is None else flow.throw(error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            between(number)
            answer, error = None, None
            try:
                answer = (at or {}).get(number, model.perform)(step)
            except RegfsError as failed:
                error = failed
            number += 1
    finally:
        flow.close()


def steps_of(flow_of: Callable[[], Flow[object]], model_of: Callable[[], Model]) -> Iterator[int]:
    """The numbers of the steps that a flow takes where nothing goes wrong."""
    model = model_of()
    with suppress(RegfsError):
        drive(flow_of(), model)
    yield from range(len(model.done))
