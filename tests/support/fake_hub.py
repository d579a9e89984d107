"""A Docker Hub for tests: its API on one host, its registry and token endpoint on others.

Written from Docker's published documentation, as it was on 2026-11-25 in docker/docs: the OpenAPI description
content/reference/api/hub/latest.yaml (0073bb65, c065f800; its changelog's last entry is of 2025-11-21), and
content/manuals/docker-hub/usage/pulls.md (000a96d3) for pulls and their limit. Not described there, and as clients of the
real one use it: ``/v2/user/orgs/`` and the DELETE of a tag (docker/hub-tool, pkg/hub), ``/v2/repositories/namespaces``
(goharbor/harbor), the refusals of a deletion (docker/hub-feedback 2006 and 2398). The registry is `FakeRegistry`.

What a good client never sends is refused, and the ``with`` block then ends with an AssertionError: paths and verbs that
there are not, pages of more than 100, unknown parameters, a password where a token belongs, a write to the registry.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs, urlsplit

from regfs.testing.behaviour import Auth, Behaviour, TagDelete
from regfs.testing.fake import FakeRegistry
from regfs.testing.faults import Fate
from regfs.testing.images import Pushable
from regfs.testing.records import Request, RequestRecord
from regfs.testing.replies import Reply, error_reply, json_reply
from regfs.testing.server import Answer, Listener, Server
from regfs.testing.sign_in import SignIn
from tests.support.fake_service import FakeService

NEVER: Final = "0001-01-01T00:00:00Z"
"""How the API writes a time that is not known."""
WINDOW: Final = 21600
_FIRST: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_LEVELS: Final = ("repo:public_read", "repo:read", "repo:write", "repo:admin")
_ROUTES: Final = {
    "token": (r"/v2/auth/token", {"POST"}, set[str]()),
    "namespaces": (r"/v2/repositories/namespaces/?", {"GET"}, {"page", "page_size"}),
    "orgs": (r"/v2/user/orgs/", {"GET"}, {"page", "page_size"}),
    "repositories": (r"/v2/namespaces/(?P<ns>[^/]+)/repositories", {"GET"}, {"page", "page_size"}),
    "repository": (r"/v2/namespaces/(?P<ns>[^/]+)/repositories/(?P<name>[^/]+)", {"GET", "HEAD"}, set[str]()),
    "tags": (
        r"/v2/namespaces/(?P<ns>[^/]+)/repositories/(?P<name>[^/]+)/tags",
        {"GET", "HEAD"},
        {"page", "page_size"},
    ),
    "tag": (
        r"/v2/namespaces/(?P<ns>[^/]+)/repositories/(?P<name>[^/]+)/tags/(?P<tag>[^/]+)",
        {"GET", "HEAD"},
        set[str](),
    ),
    "deletion": (
        r"/v2/repositories/(?P<ns>[^/]+)/(?P<name>[^/]+)/tags/(?P<tag>[^/]+)/",
        {"DELETE"},
        set[str](),
    ),
}


@dataclass
class Secret:
    """A password or token of ``owner``'s, a user or (an organisation access token) an organisation.

    ``scope`` is the highest of a personal access token's; a password has them all. ``on_api``: whether the API's sign-in
    takes it, which it does of no password that has a second factor.
    """

    owner: str
    value: str
    scope: str = "repo:admin"
    on_api: bool = True

    @property
    def is_organisations(self) -> bool:
        """Whether it is an organisation access token."""
        return self.value.startswith("dckr_oat_")


@dataclass
class FakeHub(FakeService):
    """What Docker Hub holds and who may do what; attributes may be changed while it runs.

    ``pulls`` counts GETs of manifests. ``limit`` is how many there may be in six hours, None: any number. ``per_page`` is
    the most entries of an API's page, ``forbidden`` are namespaces that it refuses to list, ``failing`` statuses that a
    kind of API request is answered with. ``digests``: whether tags are listed with theirs.
    """

    limit: int | None = None
    pulls: int = 0
    per_page: int = 100
    digests: bool = True
    forbidden: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    api_left: int | None = None
    token_lifetime: float = 600.0
    sticky: bool = False
    """Whether the API says that it deleted a tag, and does not."""
    endless: bool = False
    """Whether each page of an API's listing leads to another one, with nothing on it."""
    orgs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    records: list[RequestRecord] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    sign_ins: list[tuple[str, int]] = field(default_factory=list)
    """Who asked the API's sign-in, and what it answered."""

    def __post_init__(self) -> None:
        self._secrets: list[Secret] = []
        self._tokens: dict[str, tuple[Secret, float]] = {}
        self._pushed: dict[tuple[str, str], datetime] = {}
        self.registry = _Registry(self)
        self.server = Server([Listener("api", "127.0.0.1")], self._respond, self.records, lambda: "")

    # ── what it holds ──

    @property
    def options(self) -> dict[str, str]:
        """A connection's options that lead here."""
        return {
            "api": f"http://{self.server.authority('api')}",
            "registry": f"http://{self.registry.authority}",
        }

    def push(
        self,
        repository: str,
        tags: Sequence[str],
        what: Pushable | None = None,
        *,
        at: datetime | None = None,
    ) -> Pushable:
        """Put an image; each push is a minute later than the one before where ``at`` does not say when it was."""
        when = at or _FIRST + timedelta(minutes=len(self._pushed))
        for tag in tags:
            self._pushed[repository, tag] = when
        return self.registry.push(repository, tags, what)

    def sign_up(
        self, user: str, password: str = "a-password", *, orgs: Iterable[str] = (), on_api: bool = True
    ) -> Secret:
        """Make an account that is an owner of ``orgs``."""
        self.orgs[user] = tuple(orgs)
        return self.give(user, password, on_api=on_api)

    def give(self, owner: str, value: str, scope: str = "repo:admin", *, on_api: bool = True) -> Secret:
        """Make a token (``dckr_pat_…``, ``dckr_oat_…``) or a password."""
        secret = Secret(owner, value, scope, on_api)
        self._secrets.append(secret)
        return secret

    def revoke(self, secret: Secret) -> None:
        """A secret is good no more, nor is any token that was got with it."""
        self._secrets.remove(secret)
        self.expire_tokens()
        self.registry.sign_in.revoke_tokens()

    def expire_tokens(self) -> None:
        """The API's tokens are good no more; secrets still are."""
        self._tokens.clear()

    def forget(self) -> None:
        """Forget all requests so far."""
        self.records.clear()
        self.sign_ins.clear()
        self.registry.forget()
        self.pulls = 0

    def asked(self) -> list[str]:
        """What the API was asked but for sign-ins: verbs and paths, in order."""
        return [
            f"{r.method} {urlsplit(r.target).path}"
            for r in self.records
            if not r.target.endswith("/auth/token")
        ]

    # ── who may do what ──

    def known(self, owner: str, value: str) -> Secret | None:
        """The secret that somebody signs in with."""
        return next((s for s in self._secrets if (s.owner, s.value) == (owner, value)), None)

    def may(self, secret: Secret | None, repository: str, scope: str) -> bool:
        """Whether a sign-in (None: nobody) may do in a repository what needs ``scope``."""
        if repository not in self.private and scope in ("repo:public_read", "repo:read"):
            return True
        if secret is None:
            return False
        namespaces = {secret.owner, *self.orgs.get(secret.owner, ())}
        enough = _LEVELS.index(secret.scope) >= _LEVELS.index(scope)
        return enough and repository.partition("/")[0] in namespaces

    # ── the API ──

    async def _respond(self, request: Request, record: RequestRecord) -> Answer:
        reply = self._reply(request)
        if self.api_left is not None:
            ends = int(time.time()) + 3600
            reply.headers += [("X-RateLimit-Limit", "180"), ("X-RateLimit-Remaining", str(self.api_left))]
            reply.headers.append(("X-RateLimit-Reset", str(ends)))
        return Answer(reply, Fate())

    def _reply(self, request: Request) -> Reply:
        wrong = self._wrong(request)
        if wrong is not None:
            self.violations.append(f"{request.method} {request.target}: {wrong[1]}")
            return json_reply({"message": wrong[1]}, wrong[0])
        kind, parts = _route(request)
        if kind in self.failing:
            return json_reply({"message": "as the test arranged"}, self.failing[kind])
        if self.api_left is not None:
            if self.api_left <= 0:
                after = ("X-Retry-After", str(int(time.time()) + 3600))
                return json_reply({"detail": "Rate limit exceeded", "error": False}, 429, after)
            self.api_left -= 1
        if kind == "token":
            return self._sign_in(request)
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        signed = self._tokens.get(value) if scheme else None
        if scheme and (signed is None or signed[1] <= time.monotonic()):
            return json_reply({"detail": "Token is invalid or expired"}, 401)
        return self._answer(kind, parts, request, None if signed is None else signed[0])

    def _wrong(self, request: Request) -> tuple[int, str] | None:
        kind, _ = _route(request)
        if not kind:
            return 404, "there is no such path"
        _, verbs, parameters = _ROUTES[kind]
        query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
        size = query.get("page_size", ["10"])[0]
        scheme = request.headers.get("authorization", "Bearer").partition(" ")[0]
        if request.method not in verbs:
            return 405, "no such verb here"
        if set(query) - parameters:
            return 400, f"unknown parameters: {sorted(set(query) - parameters)}"
        if not size.isdecimal() or not 1 <= int(size) <= 100:
            return 400, f"page_size is {size}, and at most 100"
        if scheme != "Bearer" or (kind == "token" and "authorization" in request.headers):
            return 401, f"{scheme} credentials, where a token belongs or nothing"
        if not request.headers.get("user-agent") or request.headers.get("cookie"):
            return 400, "no User-Agent, or a cookie"
        if "application/json" not in request.headers.get("accept", ""):
            return 406, "the API speaks JSON"
        return None

    def _sign_in(self, request: Request) -> Reply:
        try:
            form = json.loads(request.body)
        except ValueError:
            form = {}
        if set(form) != {"identifier", "secret"} or request.headers.get("content-type") != "application/json":
            self.violations.append(f"a sign-in of {sorted(form)}")
            return json_reply({"message": "bad request"}, 400)
        secret = self.known(form["identifier"], form["secret"])
        good = secret is not None and secret.on_api
        self.sign_ins.append((form["identifier"], 200 if good else 401))
        if secret is None or not good:
            return json_reply({"detail": "Incorrect authentication credentials"}, 401)
        token = f"eyJhbGciOiJub25lIn0.{secrets.token_urlsafe(24)}.x"
        self._tokens[token] = secret, time.monotonic() + self.token_lifetime
        return json_reply({"access_token": token})

    def _answer(self, kind: str, parts: dict[str, str], request: Request, secret: Secret | None) -> Reply:
        namespace, repository = parts.get("ns", ""), f"{parts.get('ns')}/{parts.get('name')}"
        if kind in ("namespaces", "orgs"):
            return self._account(kind, request, secret)
        if kind == "deletion":
            return self._delete(repository, parts["tag"], secret)
        if namespace in self.forbidden:
            return json_reply({"message": "access to the resource is forbidden"}, 403)
        held = {n: t for n, t in self.registry.content().items() if self.may(secret, n, "repo:read")}
        if kind == "repositories":
            names = [n for n in held if n.startswith(f"{namespace}/")]
            if not names and not any(namespace in (user, *orgs) for user, orgs in self.orgs.items()):
                return json_reply({"message": "object not found"}, 404)
            entries = [{"name": n.partition("/")[2], "namespace": namespace} for n in sorted(names)]
            return self._page(request, entries)
        if repository not in held:
            return json_reply({"message": "object not found"}, 404)
        if kind == "tags":
            newest = sorted(held[repository], key=lambda tag: self._pushed[repository, tag], reverse=True)
            return self._page(request, [self._tag(repository, tag) for tag in newest])
        if kind == "repository":
            return json_reply({"name": parts["name"], "namespace": namespace})
        if parts["tag"] not in held[repository]:
            return json_reply({"message": "tag not found"}, 404)
        return json_reply(self._tag(repository, parts["tag"]))

    def _account(self, kind: str, request: Request, secret: Secret | None) -> Reply:
        if secret is None:
            return json_reply({"detail": "Authentication credentials were not provided."}, 401)
        if secret.is_organisations:
            return json_reply({"detail": "access forbidden for organization access tokens"}, 403)
        orgs = self.orgs.get(secret.owner, ())
        if kind == "orgs":
            return self._page(request, [{"orgname": name} for name in orgs])
        return json_reply({"namespaces": [secret.owner, *orgs], "next": None})

    def _tag(self, repository: str, tag: str) -> dict[str, object]:
        pushed = self._pushed[repository, tag].isoformat().replace("+00:00", "Z")
        found: dict[str, object] = {
            "name": tag,
            "tag_last_pushed": pushed,
            "last_updated": pushed,
            "tag_last_pulled": NEVER,
            "images": [],
        }
        if self.digests:
            found["digest"] = str(self.registry.content()[repository][tag])
        return found

    def _page(
        self, request: Request, entries: Sequence[dict[str, object]] | Sequence[dict[str, str]]
    ) -> Reply:
        query = request.query
        number, size = int(query.get("page", 1)), min(int(query.get("page_size", 10)), self.per_page)
        page = entries[(number - 1) * size : number * size]
        url = f"http://{request.authority}{urlsplit(request.target).path}?page={number + 1}&page_size={size}"
        more = self.endless or number * size < len(entries)
        return json_reply({"count": len(entries), "next": url if more else None, "results": list(page)})

    def _delete(self, repository: str, tag: str, secret: Secret | None) -> Reply:
        if secret is None:
            return json_reply({"detail": "Authentication credentials were not provided."}, 401)
        tags = self.registry.content().get(repository, {})
        if not self.may(secret, repository, "repo:read") or tag not in tags:
            return json_reply({"message": "tag not found"}, 404)
        if not self.may(secret, repository, "repo:admin"):
            if secret.value.startswith("dckr_pat_"):
                return json_reply(
                    {"detail": "access to the resource is forbidden with personal access token"}, 403
                )
            inner = '{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            text = f'Delete "https://registry.internal/{repository}": http: non-successful response (status=401 body={inner!r})'
            return json_reply({"message": text, "errinfo": {}}, 500)
        if not self.sticky:
            self.registry.store.remove_tag(repository, tag)
        return Reply(204)


class _SignIn(SignIn):
    """The token endpoint: each account has several secrets, and a token holds what the secret may do."""

    hub: FakeHub

    def _user(self, secret: str) -> str | None:
        found = self._secret(secret)
        return None if found is None else f"{found.owner}\n{found.value}"

    def _secret(self, pair: str) -> Secret | None:
        try:
            user, _, value = base64.b64decode(pair, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return self.hub.known(user, value)

    def _issue(self, account: str, scopes: tuple[str, ...], form: dict[str, list[str]]) -> Reply:
        secret = self.hub.known(*account.split("\n")) if account else None
        held = tuple(
            f"repository:{name}:{action}"
            for _, name, action in (re.fullmatch(r"(\w+):(.*):([^:]*)", scope).groups() for scope in scopes)  # type: ignore[union-attr]
            if name in self.hub.registry.content() and self.hub.may(secret, name, "repo:read")
        )
        return super()._issue(account, held, form)


class _Registry(FakeRegistry):
    """The registry's host: it counts pulls, says what is left of them, and has nothing deleted or pushed by a mount."""

    def __init__(self, hub: FakeHub) -> None:
        super().__init__(
            Behaviour(
                auth=Auth.BEARER,
                anonymous_tokens=True,
                catalog_status=401,
                tag_delete=TagDelete.UNSUPPORTED,
                referrers_status=404,
            )
        )
        self._hub = hub
        self.sign_in = _SignIn(self.behaviour, lambda: self.realm)
        self.sign_in.hub = hub

    def _answer(self, request: Request) -> Reply:
        if request.listener == "registry" and request.method not in ("GET", "HEAD"):
            self.violations.append(f"{request.method} {request.path} of the registry")
        if request.listener == "registry" and request.path.count("/") not in (2, 5, 6):
            self.violations.append(f"{request.path}: what Docker Hub holds has two components")
        reply = super()._answer(request)
        if request.listener != "registry" or request.route.kind != "manifest" or reply.status != 200:
            return reply
        return self._metered(request, reply)

    def _metered(self, request: Request, reply: Reply) -> Reply:
        hub = self._hub
        if hub.limit is None:
            hub.pulls += request.method == "GET"
            return reply
        if request.method == "GET" and hub.pulls >= hub.limit:
            text = "You have reached your pull rate limit. You may increase the limit by authenticating and upgrading"
            reply = error_reply(429, "TOOMANYREQUESTS", text)
        else:
            hub.pulls += request.method == "GET"
        left = max(0, hub.limit - hub.pulls)
        reply.headers += [
            ("ratelimit-limit", f"{hub.limit};w={WINDOW}"),
            ("ratelimit-remaining", f"{left};w={WINDOW}"),
            ("docker-ratelimit-source", "127.0.0.1"),
        ]
        return reply


def _route(request: Request) -> tuple[str, dict[str, str]]:
    path = urlsplit(request.target).path
    for kind, (pattern, _, _) in _ROUTES.items():
        match = re.fullmatch(pattern, path)
        if match is not None:
            return kind, match.groupdict()
    return "", {}
