"""The sign-in of a `FakeRegistry`: its challenges, its token endpoint, and what a token is good for.

Protocol: distribution's docs/spec/auth, token.md (GET) and oauth.md (POST). The tokens are opaque.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from regfs.testing.behaviour import Auth, Behaviour, Challenges
from regfs.testing.records import Request
from regfs.testing.replies import Reply, error_reply, json_reply

SERVICE = "fake-registry"

_WITH_BASIC = frozenset({Challenges.BOTH_IN_ONE, Challenges.TWO_HEADERS})
"""The challenges that offer Basic beside Bearer, so that a registry which gives them takes it."""

Scope = tuple[str, str, str]
"""Type, name and one action."""


@dataclass(frozen=True)
class TokenIssue:
    """One request to the token endpoint: ``kind`` is anonymous, basic, password or refresh_token."""

    method: str
    kind: str
    account: str
    scopes: tuple[str, ...]
    status: int


@dataclass(frozen=True)
class _Token:
    account: str
    granted: frozenset[Scope]
    ends: float


class SignIn:
    """Who may do what. ``issues`` are the requests for tokens, ``refresh_tokens`` say whose they are."""

    def __init__(
        self, behaviour: Behaviour, realm: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._behaviour = behaviour
        self._realm = realm
        self._clock = clock
        self._tokens: dict[str, _Token] = {}
        self.issues: list[TokenIssue] = []
        self.refresh_tokens: dict[str, str] = {}

    def new_refresh_token(self, account: str) -> str:
        """Make an identity token, as `docker login` keeps one."""
        token = secrets.token_urlsafe(24)
        self.refresh_tokens[token] = account
        return token

    def revoke_tokens(self) -> None:
        """From now on no token that was given is good."""
        self._tokens.clear()

    def refusal(self, request: Request) -> Reply | None:
        """The 401 or 403 that a request gets, or None: it may go on."""
        needed = scopes_for(request)
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        match self._behaviour.auth, scheme.lower():
            case Auth.NONE, _:
                return None
            case Auth.BASIC, "basic":
                return None if self._user(secret) is not None else self._challenge(needed)
            case Auth.BEARER, "bearer":
                return self._judge(secret, needed)
            case Auth.BEARER, "basic" if self._behaviour.challenges in _WITH_BASIC:
                return None if self._user(secret) is not None else self._challenge(needed)
            case Auth.KEY, _:
                return self._judge_key(request)
            case _:
                silent = self._behaviour.challenges is Challenges.PING_ONLY and request.route.kind != "ping"
                return error_reply(401, "UNAUTHORIZED") if silent else self._challenge(needed)

    def refuse(self, request: Request) -> Reply:
        """The 401 of a registry that takes no token at all for this, though it asks for one."""
        if self._behaviour.auth is Auth.NONE:
            return error_reply(401, "UNAUTHORIZED", "not for you")
        return self._challenge(scopes_for(request), "insufficient_scope")

    def refuse_elsewhere(self, base: str) -> Reply:
        """The 401 of the other host, which sends whoever asks to its own token endpoint."""
        challenge = f'Bearer realm="{base}/token",service="elsewhere"'
        return error_reply(401, "UNAUTHORIZED", "sign in here", ("WWW-Authenticate", challenge))

    def token(self, request: Request) -> Reply:
        """What the token endpoint answers."""
        behaviour = self._behaviour
        status = behaviour.token_post if request.method == "POST" else behaviour.token_get
        form = _form(request)
        scopes = tuple(scope for value in form.get("scope", []) for scope in value.split())
        scopes = scopes[:1] if behaviour.first_scope_only else scopes
        kind, account = self._account(request, form)
        if status == 200 and account is None:
            status = 401
        if status == 200 and any(a not in behaviour.actions for _, _, a in _split(scopes)):
            status = 400
        self.issues.append(TokenIssue(request.method, kind, account or "", scopes, status))
        if status != 200 or account is None:
            return error_reply(status, "UNAUTHORIZED", "no token for you")
        return self._issue(account, scopes, form)

    def _issue(self, account: str, scopes: tuple[str, ...], form: dict[str, list[str]]) -> Reply:
        behaviour = self._behaviour
        granted = frozenset(
            (kind, name, action)
            for kind, name, action in _split(scopes)
            if name not in behaviour.denied and (account or action == "pull")
        )
        token = secrets.token_urlsafe(32)
        self._tokens[token] = _Token(account, granted, self._clock() + behaviour.token_lifetime)
        reply: dict[str, object] = dict.fromkeys(behaviour.token_names, token)
        if behaviour.expires_in is not None:
            reply["expires_in"] = behaviour.expires_in
        if behaviour.issued_ago is not None:
            issued = datetime.now(UTC) - timedelta(seconds=behaviour.issued_ago)
            reply["issued_at"] = issued.isoformat().replace("+00:00", "Z")
        if behaviour.token_padding:
            reply["padding"] = " " * behaviour.token_padding
        if account and ("true" in form.get("offline_token", []) or "offline" in form.get("access_type", [])):
            reply["refresh_token"] = self.new_refresh_token(account)
        return json_reply(reply)

    def _account(self, request: Request, form: dict[str, list[str]]) -> tuple[str, str | None]:
        """How the caller signs in, and as whom: "" is anonymous, None nobody we know."""
        first = {name: values[0] for name, values in form.items()}
        if request.method == "POST" and first.get("grant_type") == "refresh_token":
            return "refresh_token", self.refresh_tokens.get(first.get("refresh_token", ""))
        if request.method == "POST":
            pair = f"{first.get('username', '')}:{first.get('password', '')}"
            return "password", self._user(base64.b64encode(pair.encode()).decode())
        secret = request.headers.get("authorization", "").partition(" ")[2]
        if secret:
            return "basic", self._user(secret)
        return "anonymous", "" if self._behaviour.anonymous_tokens else None

    def _user(self, secret: str) -> str | None:
        try:
            user, _, password = base64.b64decode(secret, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user if user and self._behaviour.users.get(user) == password else None

    def _judge_key(self, request: Request) -> Reply | None:
        given = request.headers.get(self._behaviour.key_header.lower())
        return None if given in self._behaviour.users.values() else error_reply(401, "UNAUTHORIZED")

    def _judge(self, secret: str, needed: list[str]) -> Reply | None:
        token = self._tokens.get(secret)
        if token is None or token.ends <= self._clock():
            return self._challenge(needed, "invalid_token")
        missing = [scope for scope in _split(tuple(needed)) if not _covers(token.granted, scope)]
        return self._challenge(needed, "insufficient_scope") if missing else None

    def _challenge(self, needed: list[str], error: str = "") -> Reply:
        headers = [("WWW-Authenticate", value) for value in self._challenges(" ".join(needed), error)]
        return error_reply(401, "UNAUTHORIZED", "authentication required", *headers)

    def _challenges(self, scope: str, error: str) -> list[str]:
        style = self._behaviour.challenges
        if style is Challenges.NONE:
            return []
        if self._behaviour.auth is Auth.BASIC:
            return [_spell_basic(style, self._realm())]
        parameters = {"realm": self._realm(), "service": SERVICE, "scope": scope, "error": error}
        if style is Challenges.RELATIVE:
            parameters["realm"] = f"{self._behaviour.prefix}/token"
        if style is Challenges.SCOPES and scope:
            parameters["scope"] = f"repository:another/one:pull {scope}"
        if style is Challenges.OTHER_AFTER and error:
            return ['Basic realm="fake registry"']
        if style is Challenges.NO_SERVICE:
            parameters["service"] = ""
        if style is Challenges.NO_SCOPE:
            parameters["scope"] = ""
        return _spell({key: value for key, value in parameters.items() if value}, style)


def scopes_for(request: Request) -> list[str]:
    """What a token must be good for, as Docker's registry asks: a DELETE for `delete` alone."""
    repository, method = request.route.repository, request.method
    if request.route.kind == "catalog":
        return ["registry:catalog:*"]
    if not repository:
        return []
    actions = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(method, "pull,push")
    mounted_from = request.query.get("from")
    extra = [f"repository:{mounted_from}:pull"] if method == "POST" and mounted_from else []
    return [f"repository:{repository}:{actions}", *extra]


def _spell_basic(style: Challenges, realm: str) -> str:
    basic = 'Basic realm="fake registry"'
    match style:
        case Challenges.SHOUTING:
            return basic.replace("Basic", "BASIC")
        case Challenges.NEGOTIATE:
            return f"Negotiate, {basic}"
        case Challenges.BASIC_URL:
            return f'Basic realm="{realm}",service="{SERVICE}"'
        case _:
            return basic


def _spell(parameters: dict[str, str], style: Challenges) -> list[str]:
    pairs = [f'{key}="{value}"' for key, value in parameters.items()]
    plain = "Bearer " + ",".join(pairs)
    match style:
        case Challenges.BOTH_IN_ONE:
            return [f'{plain},Basic realm="fake, registry"']
        case Challenges.TWO_HEADERS:
            return ["Basic", plain]
        case Challenges.SHOUTING:
            return [
                "BEARER  " + " , ".join(f'{key.upper()} = "{value}"' for key, value in parameters.items())
            ]
        case Challenges.REORDERED:
            return ["Bearer " + ", ".join(reversed(pairs))]
        case Challenges.ESCAPED:
            return [f'Bearer note="a \\"quoted\\", text\\\\",{",".join(pairs)}']
        case Challenges.NEGOTIATE:
            return [f"Negotiate, {plain}"]
        case _:
            return [plain]


def _form(request: Request) -> dict[str, list[str]]:
    text = request.body.decode() if request.method == "POST" else urlsplit(request.target).query
    return parse_qs(text)


def _split(scopes: tuple[str, ...]) -> list[Scope]:
    """Type, name and action of each: the type ends at the first colon, the actions begin after the last."""
    found = []
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        found += [(kind, name, action) for action in actions.split(",")]
    return found


def _covers(granted: frozenset[Scope], needed: Scope) -> bool:
    kind, name, _ = needed
    return needed in granted or (kind, name, "*") in granted
