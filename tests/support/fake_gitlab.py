"""A GitLab for tests: its API, its token endpoint and its OAuth endpoints on one host, its registry on another.

Written from GitLab's published documentation, as it was on 2026-11-25 in gitlabhq/gitlabhq: doc/api/container_registry.md
(0286e4c6), doc/api/rest/_index.md (017a6c12), doc/api/oauth2.md (04b8ef13), doc/api/groups.md, projects.md,
personal_access_tokens.md, container_registry_protection_tag_rules.md, doc/ci/jobs/ci_job_token.md (017a6c12),
doc/user/packages/container_registry/authenticate_with_container_registry.md (0286e4c6); how refusals are spelled is in
lib/api/api_guard.rb (017a6c12). The registry is `FakeRegistry`, which says what it follows.

What a good client never sends is refused as GitLab refuses it, and the ``with`` block then ends with an AssertionError:
unencoded paths, pages of more than 100, a token in the wrong header or in a URL, keyset paging where there is none,
a deletion by digest or in bulk.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qs, urlsplit

from regfs.digest import Digest
from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.faults import Fate, Fault, Faults
from regfs.testing.images import Pushable
from regfs.testing.records import Request, RequestRecord
from regfs.testing.replies import Reply, error_reply, json_reply
from regfs.testing.server import Answer, Listener, Server
from regfs.testing.sign_in import SERVICE, Scope, SignIn, _Token
from tests.support.fake_gitlab_api import FakeApi
from tests.support.fake_gitlab_data import DEVELOPER, REPORTER, Token, World
from tests.support.fake_service import FakeService

REALM = "/jwt/auth"


class _SignIn(SignIn):
    """The registry's side: it takes the tokens that ``/jwt/auth`` gave."""

    def give(self, account: str, granted: Iterable[Scope]) -> str:
        """A token that is good for that."""
        token = secrets.token_urlsafe(32)
        self._tokens[token] = _Token(account, frozenset(granted), self._clock() + 300)
        return token

    def _challenges(self, scope: str, error: str) -> list[str]:
        return [text.replace(SERVICE, "container_registry") for text in super()._challenges(scope, error)]


class _Registry(FakeRegistry):
    """The registry's host."""

    def __init__(self, realm: Callable[[], str]) -> None:
        super().__init__(Behaviour(auth=Auth.BEARER, catalog_status=401, referrers_status=404))
        self._realm_of_gitlab = realm
        self.gitlab_sign_in = _SignIn(self.behaviour, lambda: self.realm)
        self.sign_in = self.gitlab_sign_in

    @property
    def realm(self) -> str:
        """The instance's token endpoint."""
        return self._realm_of_gitlab()


class FakeGitLab(FakeService):
    """A GitLab installation; ``prefix`` (``/gitlab``) makes it one with a relative URL.

    ``most`` is the most entries of a page (GitLab: 100), ``is_gitlab_com`` gives keyset paging of tags, ``links`` and
    ``next_pages`` say whether listings bear Link and X-Next-Page. Faults hit requests to the instance's host.
    """

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.world = World()
        self.records: list[RequestRecord] = []
        self.violations: list[str] = []
        self.oauth_opens_registry = False
        self.device_interval = 5
        self._faults = Faults()
        self._devices: dict[str, tuple[str, str]] = {}
        self._approved: dict[str, Token] = {}
        self._refreshes: dict[str, Token] = {}
        self.server = Server([Listener("instance", "127.0.0.1")], self._respond, self.records, lambda: "")
        self.registry: _Registry = _Registry(lambda: f"{self.url}{REALM}")
        self.api = FakeApi(self.world, self.registry.store, lambda: self.url, self.violations)

    def wrong(self) -> list[str]:
        """Writes at the registry, too: GitLab deletes by its API."""
        return [*self.violations, *(f"DELETE at the registry: {r.target}" for r in self.registry.writes())]

    # ── what it holds ────────────────────────────────────────────────────────────────────────────

    @property
    def url(self) -> str:
        """The instance's URL."""
        return f"http://{self.server.authority('instance')}{self.prefix}"

    @property
    def address(self) -> str:
        """The registry's address."""
        return self.registry.address

    def push(self, repository: str, tags: str | Iterable[str] = (), what: Pushable | None = None) -> Pushable:
        """Push an image; where no project is above it yet, one is made at the repository's own path."""
        if self.world.project_of(repository) is None:
            self.world.add_project(repository)
        return self.registry.push(repository, tags, what)

    def token(
        self,
        kind: str = "personal",
        scopes: str = "api",
        roles: Mapping[str, int] | None = None,
        *,
        user: str = "alice",
        state: str = "active",
    ) -> Token:
        """Make a token, prefixed as GitLab does; the roles are everywhere those of a Developer in ``team``, if not given."""
        prefix = {"deploy": "gldt-", "job": "glcbt-64_", "oauth": ""}.get(kind, "glpat-")
        name = {"job": "gitlab-ci-token", "deploy": "gitlab+deploy-token-5", "oauth": "oauth2"}.get(
            kind, user
        )
        given = {"team": DEVELOPER} if roles is None else roles
        token = Token(kind, prefix + secrets.token_urlsafe(15), name, frozenset(scopes.split()), given, state)
        self.world.tokens.append(token)
        return token

    def content(self) -> Mapping[str, Mapping[str, Digest]]:
        """Every repository, with its tags and where they point."""
        return self.registry.content()

    # ── what goes wrong, what was asked ──────────────────────────────────────────────────────────

    def fail(
        self, status: int, part: str, *, times: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Answer an error to requests at the instance whose path holds ``part``."""
        fault = Fault(lambda record: part in record.target, times, status=status, headers=headers)
        self._faults.rules.append(fault)

    def reset_after_acting(self, part: str) -> None:
        """Act on the next request whose path holds ``part``, and cut its reply off."""
        self._faults.rules.append(Fault(lambda record: part in record.target, 1, cut_at=0))

    def asked(self, part: str = "/api/v4/") -> list[str]:
        """The requests at the instance whose target holds ``part``: ``GET /groups?…``, below ``/api/v4``."""
        base = f"{self.prefix}/api/v4"
        return [f"{r.method} {r.target.removeprefix(base)}" for r in self.records if part in r.target]

    def forget(self) -> None:
        """Forget all requests so far."""
        self.records.clear()
        self.registry.forget()

    # ── answers ──────────────────────────────────────────────────────────────────────────────────

    async def _respond(self, request: Request, record: RequestRecord) -> Answer:
        try:
            fate = await self._faults.strike(record)
            reply = fate.reply or self._answer(request)
        except Exception:
            self.violations.append(f"the fake itself failed:\n{traceback.format_exc()}")
            return Answer(json_reply({"message": "500 Internal Server Error"}, 500), Fate())
        return Answer(reply, fate)

    def _answer(self, request: Request) -> Reply:
        path = urlsplit(request.target).path
        if not path.startswith(f"{self.prefix}/"):
            return self._wrong(request, 404, "a path outside of the installation's prefix")
        rest = path.removeprefix(self.prefix)
        if not request.headers.get("user-agent"):
            self.violations.append("no User-Agent")
        if rest == REALM:
            return self._jwt(request)
        if rest.startswith("/api/v4/"):
            return self.api.answer(request, rest.removeprefix("/api/v4/"))
        if rest in ("/oauth/authorize_device", "/oauth/token"):
            return self._oauth(request, rest)
        return self._wrong(request, 404, "a path that no GitLab has")

    def _wrong(self, request: Request, status: int, why: str) -> Reply:
        self.violations.append(f"{request.method} {request.target[:200]}: {why}")
        return json_reply({"error": f"{status} {why}"}, status)

    # ── the registry's tokens ────────────────────────────────────────────────────────────────────

    def _jwt(self, request: Request) -> Reply:
        query = parse_qs(urlsplit(request.target).query)
        if request.method != "GET" or query.get("service") != ["container_registry"]:
            return self._wrong(request, 404, "not how a token for the registry is asked for")
        scopes = [scope for value in query.get("scope", []) for scope in value.split()]
        given = request.headers.get("authorization", "")
        if not given:
            return self._issue(None, scopes) if scopes else error_reply(403, "DENIED", "access forbidden")
        user, secret = _basic(given)
        token = self.world.token(secret)
        if token is None or token.state != "active" or not _may_be_called(token, user):
            return error_reply(401, "UNAUTHORIZED", "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or you're required to use a token instead of a password.")  # fmt: skip
        closed = token.kind == "oauth" and not self.oauth_opens_registry
        if closed or not ({"read_registry", "write_registry", "api"} & token.scopes or token.kind == "job"):
            return error_reply(403, "DENIED", "access forbidden")
        return self._issue(token, scopes)

    def _issue(self, token: Token | None, scopes: list[str]) -> Reply:
        granted: list[Scope] = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if {"delete", "*"} & set(actions.split(",")) and kind == "repository":
                self.violations.append(f"a token that deletes in the registry itself was asked for: {scope}")
            granted += [
                (kind, name, action)
                for action in actions.split(",")
                if self._grants(token, kind, name, action)
            ]
        account = token.user if token else ""
        return json_reply({"token": self.registry.gitlab_sign_in.give(account, granted)})

    def _grants(self, token: Token | None, kind: str, name: str, action: str) -> bool:
        project = self.world.project_of(name) if kind == "repository" else None
        if project is None:
            return False
        scopes = token.scopes if token else frozenset({"read_registry"})
        if action == "pull":
            can = bool(scopes & {"read_registry", "api"}) or (token is not None and token.kind == "job")
            return can and self.world.reads_images(token, project)
        role = token.role(project.low) if token else 0
        return action == "push" and bool(scopes & {"write_registry", "api"}) and role >= DEVELOPER

    # ── OAuth ────────────────────────────────────────────────────────────────────────────────────

    def approve(self, user_code: str, roles: Mapping[str, int] | None = None) -> None:
        """Do in the browser what the person does there."""
        scope = next(scope for code, scope in self._devices.values() if code == user_code)
        self._approved[user_code] = self.token(
            "oauth", scope, roles if roles is not None else {"team": REPORTER}
        )

    def _oauth(self, request: Request, path: str) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if request.method != "POST" or not form.get("client_id"):
            return self._wrong(request, 400, "no OAuth request")
        if path == "/oauth/authorize_device":
            device, code = secrets.token_urlsafe(24), secrets.token_hex(4).upper()
            self._devices[device] = code, form.get("scope", "")
            page = f"{self.url}/oauth/device"
            return json_reply({"device_code": device, "user_code": code, "verification_uri": page, "verification_uri_complete": f"{page}?user_code={code}", "expires_in": 300, "interval": self.device_interval})  # fmt: skip
        if form.get("grant_type") == "refresh_token":
            token = self._refreshes.pop(form.get("refresh_token", ""), None)
            if token is None:
                return json_reply({"error": "invalid_grant", "error_description": "The provided authorization grant is invalid, expired or revoked."}, 400)  # fmt: skip
            token.secret, token.state = secrets.token_hex(32), "active"
            return self._granted(token)
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code":
            return json_reply({"error": "unsupported_grant_type"}, 400)
        code, _ = self._devices.get(form.get("device_code", ""), ("", ""))
        if code not in self._approved:
            error = "authorization_pending" if code else "invalid_grant"
            return json_reply({"error": error, "error_description": "…"}, 400)
        return self._granted(self._approved.pop(code))

    def _granted(self, token: Token) -> Reply:
        refresh = secrets.token_hex(32)
        self._refreshes[refresh] = token
        return json_reply({"access_token": token.secret, "token_type": "Bearer", "expires_in": 7200, "refresh_token": refresh, "scope": " ".join(sorted(token.scopes)), "created_at": int(time.time())})  # fmt: skip


def _basic(header: str) -> tuple[str, str]:
    scheme, _, text = header.partition(" ")
    try:
        user, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (user, secret) if scheme.lower() == "basic" else ("", "")


def _may_be_called(token: Token, user: str) -> bool:
    """Any user name goes with an access token; deploy and job tokens have one of their own."""
    return bool(user) and (token.is_access or token.kind == "oauth" or user == token.user)
