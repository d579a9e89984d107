"""A registry for tests: over real sockets, strict about its clients, and as odd or as hostile as a test wants.

    with FakeRegistry(Behaviour(tag_delete=TagDelete.DIGEST_INVALID)) as registry:
        registry.push("team/app", ["v1", "v2"])
        ...  # let the code under test talk to registry.address
        assert registry.count("manifest") == 1

A request that a good client never sends is refused with 400, and the ``with`` block then ends with an AssertionError
that tells of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from regfs.digest import Digest
from regfs.manifest import OCI_INDEX, OCI_MANIFEST
from regfs.testing.behaviour import Behaviour, Framing
from regfs.testing.faults import Fate, Fault, Faults, Gate
from regfs.testing.handlers import Handlers
from regfs.testing.images import Pushable, make_image
from regfs.testing.records import Request, RequestRecord, Where, fits
from regfs.testing.replies import Reply, error_reply, json_reply
from regfs.testing.server import Answer, Listener, Server
from regfs.testing.sign_in import SignIn, TokenIssue
from regfs.testing.store import Store, Stored, parsed_digest
from regfs.testing.strict import violations


class FakeRegistry:
    """A registry on 127.0.0.1, its token endpoint on another port, and a foreign host on 127.0.0.2.

    ``records`` are all requests in the order they came, ``violations`` what no good client sends. ``behaviour`` may
    be changed while it runs. In the methods below ``where`` says which requests are meant: a kind ("ping",
    "catalog", "tags", "manifest", "blob", "upload", "referrers", "token", or "own": any other path under ``/v2/``), a
    predicate on the record, or None: all under ``/v2/``.
    ``max_in_flight`` is the most requests under ``/v2/`` that were being answered at once; an answer takes no time
    unless a `delay` or `stall` makes it.
    """

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = Behaviour() if behaviour is None else behaviour
        self.store = Store()
        self.records: list[RequestRecord] = []
        self.violations: list[str] = []
        self.sign_in = SignIn(self.behaviour, lambda: self.realm)
        self.in_flight = 0
        self.max_in_flight = 0
        self._faults = Faults()
        self._own: dict[str, Callable[[], object]] = {}
        self._handlers = Handlers(self.store, self.behaviour, lambda: self.elsewhere)
        tls = self.behaviour.tls
        listeners = [
            Listener("registry", "127.0.0.1", tls),
            Listener("token", "127.0.0.1", tls),
            Listener("elsewhere", "127.0.0.2", tls),
            Listener("elsewhere-plain", "127.0.0.2"),
        ]
        self._server = Server(listeners, self._respond, self.records, lambda: self.behaviour.prefix)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        malformed = [f"malformed: {r.target}" for r in self.records if r.kind == "malformed"]
        wrong = [*self.violations, *(malformed if self.behaviour.strict else [])]
        if kind is None and wrong:
            raise AssertionError("requests that no good client sends:\n" + "\n".join(wrong))

    def start(self) -> None:
        """Serve, on the same ports as before if it was stopped."""
        self._server.start()

    def stop(self) -> None:
        """Close all connections and refuse new ones, as a server that is down."""
        self._server.stop()

    # ── where it is ──────────────────────────────────────────────────────────────────────────────

    @property
    def authority(self) -> str:
        """``127.0.0.1:PORT``."""
        return self._server.authority("registry")

    @property
    def address(self) -> str:
        """What a user calls it: ``127.0.0.1:PORT``, with the path prefix where there is one."""
        return f"{self.authority}{self.behaviour.prefix}"

    @property
    def url(self) -> str:
        """The base of its requests, which ends in ``/v2/``."""
        return f"{self._scheme}://{self.address}/v2/"

    @property
    def realm(self) -> str:
        """The URL of its token endpoint."""
        return f"{self._scheme}://{self._server.authority('token')}/token"

    @property
    def elsewhere(self) -> str:
        """The beginning of URLs at another host, which has the same blobs and manifests and wants no credentials."""
        return f"{self._scheme}://{self._server.authority('elsewhere')}"

    @property
    def elsewhere_plain(self) -> str:
        """As `elsewhere`, always by plain http."""
        return f"http://{self._server.authority('elsewhere-plain')}"

    @property
    def _scheme(self) -> str:
        return "https" if self.behaviour.tls else "http"

    # ── what it holds ────────────────────────────────────────────────────────────────────────────

    def push(self, repository: str, tags: str | Iterable[str] = (), what: Pushable | None = None) -> Pushable:
        """Put an image or index under ``tags`` (none: by digest alone); the default is an image of its own."""
        names = [tags] if isinstance(tags, str) else list(tags)
        pushed = make_image(f"{repository}:{','.join(names[:3])}") if what is None else what
        self.store.push(repository, names, pushed)
        return pushed

    def content(self) -> Mapping[str, Mapping[str, Digest]]:
        """Every repository, with its tags and where they point."""
        return self.store.content()

    def corrupt_blob(self, repository: str, digest: Digest, data: bytes) -> None:
        """From now on answer other bytes for that blob."""
        self.store.put_blob(repository, digest, data)

    def corrupt_manifest(self, repository: str, digest: Digest, raw: bytes, media_type: str) -> None:
        """From now on answer other bytes for that manifest, under its digest and all its tags."""
        self.store.put(repository, None, digest, Stored(raw, media_type))

    def plant(
        self,
        repository: str,
        reference: str,
        body: bytes,
        *,
        status: int = 200,
        media_type: str = OCI_MANIFEST,
        repeat: int = 1,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """From now on answer exactly this for a manifest: ``body``, ``repeat`` times over."""
        reply = Reply(status, [("Content-Type", media_type), *headers], body, repeat)
        self._handlers.planted[repository, reference] = reply

    def plant_referrers(
        self,
        repository: str,
        digest: Digest,
        body: bytes,
        *,
        status: int = 200,
        media_type: str = OCI_INDEX,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """From now on answer exactly this where somebody asks what refers to that manifest."""
        self.plant(
            repository, f"referrers/{digest}", body, status=status, media_type=media_type, headers=headers
        )

    def plant_huge(self, repository: str, reference: str, size: int = 100 * 1024 * 1024) -> None:
        """From now on answer a manifest of that many bytes (in steps of 64 KiB)."""
        self.plant(repository, reference, b" " * 65536, repeat=size // 65536)

    def plant_nested(self, repository: str, reference: str, depth: int = 100_000) -> None:
        """From now on answer a manifest of lists in lists."""
        body = b'{"schemaVersion":2,"layers":' + b"[" * depth + b"]" * depth + b"}"
        self.plant(repository, reference, body)

    def serve(self, path: str, answer: Callable[[], object]) -> None:
        """Let the registry have an API of its own: GET of ``path`` below ``/v2/`` gives ``answer()`` as JSON."""
        self._own[path] = answer

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────

    def fail(
        self,
        status: int,
        where: Where = None,
        *,
        times: int | None = None,
        retry_after: str | float | None = None,
    ) -> None:
        """Answer an error to the next ``times`` requests (None: to all), with ``Retry-After`` where given."""
        headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
        self._faults.rules.append(Fault(where, times, status=status, headers=headers))

    def reset(self, where: Where = None, *, times: int | None = None) -> None:
        """Reset the connection instead of a reply."""
        self._faults.rules.append(Fault(where, times, reset=True))

    def truncate(self, after: int, where: Where = None, *, times: int | None = None) -> None:
        """Close the connection after so many bytes of the body."""
        self._faults.rules.append(Fault(where, times, cut_at=after))

    def delay(self, seconds: float, where: Where = None, *, times: int | None = None) -> None:
        """Wait before the reply."""
        self._faults.rules.append(Fault(where, times, seconds=seconds))

    def stall(self, where: Where = None, *, after: int | None = None) -> Gate:
        """Hold requests until the gate that is returned is opened: before the reply, or ``after`` bytes of its body."""
        gate = Gate()
        self._faults.rules.append(Fault(where, gate=gate, gate_at=after))
        return gate

    def clear(self) -> None:
        """From now on nothing goes wrong any more. Requests that are held stay so until their gate is opened."""
        self._faults.rules.clear()

    # ── what it was asked ────────────────────────────────────────────────────────────────────────

    @property
    def requests(self) -> list[RequestRecord]:
        """The requests under ``/v2/``."""
        return [record for record in self.records if fits(None, record)]

    @property
    def foreign(self) -> list[RequestRecord]:
        """The requests that reached the other host."""
        return [record for record in self.records if record.listener.startswith("elsewhere")]

    @property
    def token_requests(self) -> list[TokenIssue]:
        """The requests for tokens."""
        return list(self.sign_in.issues)

    @property
    def tokens(self) -> int:
        """How many tokens were given."""
        return sum(issue.status == 200 for issue in self.sign_in.issues)

    @property
    def connections(self) -> int:
        """How many connections brought requests under ``/v2/``."""
        return len({record.connection for record in self.requests})

    def manifest_requests(self) -> list[RequestRecord]:
        """The requests for manifests that were answered other than 401."""
        return [r for r in self.requests if r.kind == "manifest" and r.status != 401]

    def writes(self) -> list[RequestRecord]:
        """The requests under ``/v2/`` that are neither GET nor HEAD."""
        return [record for record in self.requests if record.method not in ("GET", "HEAD")]

    def count(self, kind: str | None = None, *, method: str | None = None, status: int | None = None) -> int:
        """How many requests under ``/v2/`` there were, of that kind, method and status where given."""
        wanted = (kind, method, status)
        facts = ((record.kind, record.method, record.status) for record in self.requests)
        return sum(all(w is None or w == f for w, f in zip(wanted, fact, strict=True)) for fact in facts)

    def forget(self) -> None:
        """Forget all requests so far, and the most that were in flight."""
        self.records.clear()
        self.sign_in.issues.clear()
        self.max_in_flight = self.in_flight

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    async def _respond(self, request: Request, record: RequestRecord) -> Answer:
        counted = fits(None, record)
        self.in_flight += counted
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._judged(request, record)
        except Exception:
            self.violations.append(f"the fake itself failed:\n{traceback.format_exc()}")
            return Answer(error_reply(500, "UNKNOWN"), Fate())
        finally:
            self.in_flight -= counted

    async def _judged(self, request: Request, record: RequestRecord) -> Answer:
        wrong = [] if self._own_answer(request) else list(self._violations(request))
        if wrong and self.behaviour.strict:
            self.violations += [f"{request.method} {request.path}: {reason}" for reason in wrong]
            return Answer(error_reply(400, "UNSUPPORTED", "; ".join(wrong)), Fate())
        fate = await self._faults.strike(record)
        reply = fate.reply or self._answer(request)
        warnings = [("Warning", f'299 - "{text}"') for text in self.behaviour.warnings]
        reply = Reply(reply.status, [*reply.headers, *warnings], reply.body, reply.repeat)
        registry = request.listener == "registry"
        return Answer(reply, fate, self.behaviour.framing if registry else Framing.LENGTH)

    def _answer(self, request: Request) -> Reply:
        own = request.listener in ("registry", "token")
        if request.listener == "token" or (own and request.route.kind == "token"):
            return self.sign_in.token(request)
        if request.listener != "registry":
            if self.behaviour.elsewhere_asks:
                return self.sign_in.refuse_elsewhere(self.elsewhere)
            return self._handlers.answer_elsewhere(request)
        refusal = self.sign_in.refusal(request)
        if refusal is not None:
            return refusal
        if request.route.kind == "catalog" and self.behaviour.catalog_status == 401:
            return self.sign_in.refuse(request)
        special = self._own_answer(request)
        return json_reply(special()) if special is not None else self._handlers.answer(request)

    def _own_answer(self, request: Request) -> Callable[[], object] | None:
        base, _, path = request.path.partition("/v2/")
        ours = request.listener == "registry" and request.method == "GET" and base == self.behaviour.prefix
        return self._own.get(path) if ours else None

    def _violations(self, request: Request) -> Iterable[str]:
        return violations(request, self.behaviour, self._blob_size(request))

    def _blob_size(self, request: Request) -> int | None:
        if request.route.kind != "blob" or "range" not in request.headers:
            return None
        digest = parsed_digest(request.route.reference)
        data = self.store.blob(request.route.repository, digest) if digest else None
        return None if data is None else len(data)
