"""GitHub's container registry and the part of its REST API that is about packages, over real sockets.

The API follows github/rest-api-description, ``api.github.com``, API version 2022-11-28 (the operations under "packages",
"users/get-authenticated", "orgs/list-for-authenticated-user", "orgs/list-for-user"), as published in November 2026, and
docs.github.com on rate limits, scopes and required headers. The rules for deletion (a package's last tag; public versions
with over 5,000 downloads: 400) are GitHub's own words as its users quote them. The registry is `FakeRegistry`, with what
ghcr.io does otherwise: every v2 DELETE is 405, tags come oldest first, any user name goes with a token, and the catalog
never ends: past its names it gives empty pages, each with another Link.

What no good client sends is refused as GitHub does it, and held against the client at the end of the ``with`` block.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from regfs.digest import Digest
from regfs.testing.behaviour import Auth, Behaviour, Order
from regfs.testing.faults import Fate, Gate
from regfs.testing.images import Pushable
from regfs.testing.records import Request, RequestRecord
from regfs.testing.replies import Reply, json_reply
from regfs.testing.server import Answer, Listener, Server
from tests.support.fake_ghcr import GhcrRegistry, GitHub, Token, any_user
from tests.support.fake_service import FakeService

READ: Final = frozenset({"read:packages", "write:packages"})
_ORGS: Final = frozenset({"read:org", "write:org", "admin:org", "user", "repo"})
_BEGAN: Final = datetime(2024, 1, 1, tzinfo=UTC)
_VERSIONS: Final = frozenset({"2022-11-28", "2026-03-10"})
_FIRST_SEEN: Final = 1000

_OWNER: Final = r"(?:user|users/(?P<user>[^/]+)|orgs/(?P<org>[^/]+))"
_ROUTES: Final = (
    ("me", re.compile(r"/user")),
    ("my-orgs", re.compile(r"/user/orgs")),
    ("orgs", re.compile(r"/users/(?P<user>[^/]+)/orgs")),
    ("packages", re.compile(rf"/{_OWNER}/packages")),
    ("package", re.compile(rf"/{_OWNER}/packages/container/(?P<package>[^/]+)")),
    ("versions", re.compile(rf"/{_OWNER}/packages/container/(?P<package>[^/]+)/versions")),
    ("version", re.compile(rf"/{_OWNER}/packages/container/(?P<package>[^/]+)/versions/(?P<id>\d+)")),
)


class FakeGitHub(FakeService):
    """GitHub: ``registry`` at ``address``, the API at ``api``. ``calls`` are the API's requests, "VERB PATH" each.

    ``refuse_deletions``: why the API refuses to delete any version (400). ``lag``: how often a new version is not yet
    listed. ``limited_until``: seconds since 1970 until which the rate limit is used up.
    """

    def __init__(self, github: GitHub | None = None) -> None:
        self.github = GitHub() if github is None else github
        self.registry: GhcrRegistry = GhcrRegistry(
            Behaviour(
                auth=Auth.BEARER,
                users=any_user(self.github),
                deletion=False,
                order=Order.PUSHED,
                referrers_status=303,
            )
        )
        self.records: list[RequestRecord] = []
        self.violations: list[str] = []
        self.refuse_deletions = ""
        self.downloads: dict[Digest, int] = {}
        self.lag = 0
        self.limited_until: float | None = None
        self.secondary = False
        self.endless = False
        self.planted: Reply | None = None
        """What the API answers to everything, whatever it is asked."""
        self.planted_fate = Fate()
        self.client_id = "Iv1.client"
        self.pending = 1
        """How often the device flow says that the person has not agreed yet."""
        self.scopes_asked: frozenset[str] = frozenset()
        self._gate: Gate | None = None
        self._held_done = False
        self._ids: dict[tuple[str, str], int] = {}
        self._listed: dict[tuple[str, str], int] = {}
        self.server = Server([Listener("api", "127.0.0.1")], self._respond, self.records, lambda: "")

    @property
    def address(self) -> str:
        """What a user calls the registry."""
        return self.registry.address

    @property
    def api(self) -> str:
        """The base of the API."""
        return f"http://{self.server.authority('api')}"

    @property
    def calls(self) -> list[str]:
        """The API's requests so far."""
        return [f"{record.method} {record.target}" for record in self.records]

    def push(self, repository: str, tags: list[str], what: Pushable | None = None) -> Pushable:
        """Put an image there as somebody else would."""
        return self.registry.push(repository, tags, what)

    def tags(self, repository: str) -> dict[str, Digest]:
        """A repository's tags."""
        return dict(self.registry.content().get(repository, {}))

    def hold_deletions(self, *, done: bool = False) -> Gate:
        """Hold the API's deletions from now on, before they are done or (``done``) before it says so; then 503."""
        self._gate, self._held_done = Gate(), done
        return self._gate

    def release_deletions(self) -> None:
        """Hold no more."""
        self._gate = None

    def forget(self) -> None:
        """Forget all requests so far."""
        self.records.clear()
        self.registry.forget()

    # ── the API ──────────────────────────────────────────────────────────────────────────────────

    async def _respond(self, request: Request, record: RequestRecord) -> Answer:
        if self._gate is not None and request.method == "DELETE":
            if self._held_done:
                self._answer(request)
            await self._gate.pass_through()
            return Answer(Reply(503), Fate())
        if self.planted is not None:
            return Answer(self.planted, self.planted_fate)
        if request.path.startswith("/login/"):
            return Answer(self._sign_in(request), Fate())
        reply = self._answer(request)
        secret = request.headers.get("authorization", "").partition(" ")[2]
        token = self.github.tokens.get(secret)
        headers = [("X-GitHub-Media-Type", "github.v3; format=json")]
        if token is not None and token.scopes is not None:
            headers.append(("X-OAuth-Scopes", ", ".join(sorted(token.scopes))))
        return Answer(Reply(reply.status, [*reply.headers, *headers], reply.body), Fate())

    def _answer(self, request: Request) -> Reply:
        if not request.headers.get("user-agent"):
            self.violations.append("no User-Agent")
            return Reply(403, [("Content-Type", "text/html")], b"Request forbidden by administrative rules.")
        if request.headers.get("x-github-api-version", "2022-11-28") not in _VERSIONS:
            return self._wrong(request, 400, "not a version of the API")
        if "json" not in request.headers.get("accept", ""):
            self.violations.append(f"{request.target}: no Accept of JSON")
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme and scheme.lower() not in ("bearer", "token"):
            return self._wrong(request, 401, "Bad credentials")
        if self.limited_until is not None and time.time() < self.limited_until:
            return self._limited()
        path = urlsplit(request.target).path
        for name, pattern in _ROUTES:
            if match := pattern.fullmatch(path):
                return self._signed(request, secret, name, match)
        return self._wrong(request, 404, "Not Found")

    def _sign_in(self, request: Request) -> Reply:
        """The device flow: always 200, form-encoded unless JSON is asked for, a token without an end and a refresh token."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if request.method != "POST" or form.get("client_id") != self.client_id:
            answer: dict[str, str | int] = {"error": "incorrect_client_credentials"}
        elif request.path == "/login/device/code":
            self.scopes_asked = frozenset(form.get("scope", "").split())
            answer = {"device_code": "dev", "user_code": "WDJB-MJHT", "expires_in": 899, "interval": 1}
            answer["verification_uri"] = f"{self.api}/login/device"
        elif request.path != "/login/oauth/access_token" or form.get("device_code") != "dev":
            answer = {"error": "bad_verification_code"}
        elif self.pending > 0:
            self.pending -= 1
            answer = {"error": "authorization_pending", "error_description": "not yet"}
        else:
            self.github.tokens["gho_device"] = Token("Octocat", self.scopes_asked)
            scope = ",".join(sorted(self.scopes_asked))
            answer = {"access_token": "gho_device", "token_type": "bearer", "scope": scope}
        if "application/json" in request.headers.get("accept", ""):
            return json_reply(answer)
        kind = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
        return Reply(200, [kind], urlencode(answer).encode())

    def _signed(self, request: Request, secret: str, name: str, match: re.Match[str]) -> Reply:
        allowed = {"package": {"GET"}, "version": {"GET", "DELETE"}}.get(name, {"GET"})
        if request.method not in allowed:
            return self._wrong(request, 404, f"{request.method} of {name}")
        if int(request.query.get("per_page", "30")) > 100:
            return self._wrong(request, 422, "per_page is at most 100")
        if not secret:
            return _message(401, "Requires authentication")
        token = self.github.tokens.get(secret)
        if token is None or token.revoked:
            return _message(401, "Bad credentials")
        if name == "me":
            return json_reply({"login": token.login, "id": 1, "type": "User"}) if token.login else _nobody()
        if name == "my-orgs":
            return self._my_organisations(token)
        if name == "orgs":
            members = self.github.public_members
            return json_reply(
                [{"login": org} for org, who in members.items() if unquote(match["user"]) in who]
            )
        return self._packages(request, token, name, match)

    def _my_organisations(self, token: Token) -> Reply:
        if not token.login:
            return _nobody()
        if token.scopes is not None and not token.scopes & _ORGS:
            return _message(
                403,
                "You need at least read:org scope or user scope to list your organizations.",
                ("X-Accepted-OAuth-Scopes", "admin:org, read:org, repo, user, write:org"),
            )
        mine = [name for name, members in self.github.organisations.items() if token.login in members]
        return json_reply([{"login": name, "id": 2} for name in mine])

    def _packages(self, request: Request, token: Token, name: str, match: re.Match[str]) -> Reply:
        if not token.login:
            return _nobody()
        given = match["user"] or match["org"]
        owner = unquote(given).lower() if given else token.login.lower()
        known = self.github.organisations if match["org"] else self.github.users
        if owner not in {account.lower() for account in known}:
            return _message(404, "Not Found")
        if token.scopes is not None and not token.scopes & READ:
            return _message(
                403,
                "You need at least read:packages scope to list packages.",
                ("X-Accepted-OAuth-Scopes", "read:packages"),
            )
        if owner in token.forbidden or token.scopes is None:
            return _message(403, "Resource not accessible by personal access token")
        if name == "packages":
            return self._list_packages(request, owner)
        repository = f"{owner}/{unquote(match['package'])}"
        if repository not in self.registry.store.repositories():
            return _message(404, "Package not found.")
        if name == "package":
            return json_reply(self._package(repository))
        if name == "versions":
            return self._paged(request, self._versions(repository))
        return self._version(request, token, repository, int(match["id"]))

    def _list_packages(self, request: Request, owner: str) -> Reply:
        if request.query.get("package_type") != "container":
            return self._wrong(request, 422, "package_type is missing")
        names = [name for name in self.registry.store.repositories() if name.startswith(f"{owner}/")]
        return self._paged(request, [self._package(name) for name in names])

    def _package(self, repository: str) -> dict[str, object]:
        owner, _, name = repository.partition("/")
        return {
            "id": 1,
            "name": name,
            "package_type": "container",
            "owner": {"login": self.github.spelled(owner)},
        }

    def _versions(self, repository: str) -> list[dict[str, object]]:
        """All versions, newest first; one that is new is not listed for the first ``lag`` times."""
        tags: dict[Digest, list[str]] = {}
        for tag, digest in (self.registry.store.tags(repository) or {}).items():
            tags.setdefault(digest, []).append(tag)
        digests = [*self.registry.store._shelves[repository].manifests]
        shown = []
        for digest in digests:
            key = (repository, str(digest))
            number = self._ids.setdefault(key, _FIRST_SEEN + len(self._ids))
            seen = self._listed[key] = self._listed.get(key, 0) + 1
            if seen <= self.lag:
                continue
            created = (_BEGAN + timedelta(hours=number - _FIRST_SEEN)).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata = {"package_type": "container", "container": {"tags": tags.get(digest, [])}}
            shown.append(
                {
                    "id": number,
                    "name": str(digest),
                    "created_at": created,
                    "updated_at": created,
                    "metadata": metadata,
                }
            )
        return sorted(shown, key=lambda version: -int(str(version["id"])))

    def _version(self, request: Request, token: Token, repository: str, number: int) -> Reply:
        version = next((v for v in self._versions(repository) if v["id"] == number), None)
        if version is None:
            return _message(404, "Package version not found.")
        if request.method == "GET":
            return json_reply(version)
        if token.scopes is not None and "delete:packages" not in token.scopes:
            return _message(
                403,
                "You need at least delete:packages scope to delete a package version.",
                ("X-Accepted-OAuth-Scopes", "delete:packages"),
            )
        digest = Digest.parse(str(version["name"]))
        tags = self.registry.store.tags(repository) or {}
        if self.refuse_deletions:
            return _message(400, self.refuse_deletions)
        if self.downloads.get(digest, 0) > 5000:
            return _message(
                400,
                "Publicly visible package versions with more than 5000 downloads cannot be deleted."
                " Contact GitHub support for further assistance.",
            )
        if set(tags.values()) == {digest}:
            return _message(
                400,
                "You cannot delete the last tagged version of a package. You must delete the package instead.",
            )
        self.registry.store.remove_manifest(repository, digest, with_tags=True)
        return Reply(204)

    def _paged(self, request: Request, items: list[dict[str, object]]) -> Reply:
        size, page = int(request.query.get("per_page", "30")), int(request.query.get("page", "1"))
        reply = json_reply(items[(page - 1) * size : page * size])
        if self.endless or page * size < len(items):
            url = urlsplit(request.target)
            query = {k: v for k, v in request.query.items() if k != "page"} | {"page": str(page + 1)}
            text = "&".join(f"{key}={value}" for key, value in query.items())
            reply.headers.append(("Link", f'<{self.api}{url.path}?{text}>; rel="next"'))
        return reply

    def _limited(self) -> Reply:
        until = self.limited_until or 0.0
        if self.secondary:
            wait = str(max(1, round(until - time.time())))
            return _message(403, "You have exceeded a secondary rate limit.", ("Retry-After", wait))
        return _message(
            403,
            "API rate limit exceeded for user ID 1.",
            ("X-RateLimit-Limit", "5000"),
            ("X-RateLimit-Remaining", "0"),
            ("X-RateLimit-Reset", str(int(until))),
        )

    def _wrong(self, request: Request, status: int, why: str) -> Reply:
        self.violations.append(f"{request.method} {request.target}: {why}")
        return _message(status, why)


def _message(status: int, text: str, *headers: tuple[str, str]) -> Reply:
    return json_reply(
        {"message": text, "documentation_url": "https://docs.github.com/rest"}, status, *headers
    )


def _nobody() -> Reply:
    return _message(403, "Resource not accessible by integration")
