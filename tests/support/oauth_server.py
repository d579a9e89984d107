"""An authorization server on a real socket, as strict as the standards are.

Follows RFC 6749 (October 2012), 7636 (PKCE, September 2015), 8252 (loopback redirects, October 2017), 8414 (metadata,
June 2018), 8628 (devices, August 2019), 9700 (January 2025: a refresh token that is used twice revokes its whole family)
and OpenID Connect Discovery 1.0. It refuses: other verbs and content types, unknown clients and wrong secrets, grants
that a client may not use, a code without PKCE, with another redirect or used twice, refresh tokens of another client,
and polls that come faster than ``interval``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GRANTS = frozenset({"authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT})


@dataclass
class Client:
    """A client application; ``secret`` empty: a public one."""

    secret: str = ""
    grants: frozenset[str] = GRANTS - {"client_credentials"}
    auth: frozenset[str] = frozenset({"client_secret_post", "client_secret_basic"})


@dataclass
class Policy:
    """How the server behaves. May be changed while it runs."""

    interval: float | None = 0.05
    lifetime: float | None = 7200.0
    """Of access tokens: as it is said, and as they have it."""
    device_lifetime: float = 600.0
    rotate: bool = True
    refresh_tokens: bool = True
    issuer: str = ""
    """What the metadata claim to be the issuer; empty: the truth."""
    metadata: str = "oauth-authorization-server"
    """Which document there is; empty: none."""
    complete: bool = True
    pending: int = 0
    """How many polls find that the person has not decided yet, whatever they did."""
    fail: int = 0
    """Answer this many next token requests with 503."""
    fail_status: int = 503
    hold: threading.Event | None = None
    """Token requests wait for it."""
    access_token: Callable[[], str] = lambda: f"at-{secrets.token_urlsafe(24)}"


@dataclass
class _Family:
    """What came of one agreement."""

    client_id: str
    scope: str
    revoked: bool = False
    access: dict[str, float] = field(default_factory=dict)
    refresh: str = ""
    used: set[str] = field(default_factory=set)


@dataclass
class _Device:
    client_id: str
    scope: str
    user_code: str
    interval: float
    ends: float
    decision: str = "authorization_pending"
    polled: float = float("-inf")


@dataclass
class _Code:
    client_id: str
    scope: str
    redirect_uri: str
    challenge: str
    family: _Family | None = None


class _Refusal(Exception):
    def __init__(self, error: str, status: int = 400, **more: object) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error, "error_description": f"{error.replace('_', ' ')} it is", **more}


class OAuthServer:
    """A running server. ``asked`` are the grant types of all token requests, with their results."""

    def __init__(self, clients: Mapping[str, Client] | None = None) -> None:
        self.clients = dict(clients or {"regfs-app": Client()})
        self.policy = Policy()
        self.asked: list[tuple[str, str]] = []
        self.requests: list[str] = []
        self.given: set[str] = set()
        """All secrets that it ever gave."""
        self.families: list[_Family] = []
        self._devices: dict[str, _Device] = {}
        self._codes: dict[str, _Code] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.policy.hold is not None:
            self.policy.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def token_endpoint(self) -> str:
        return f"{self.issuer}/token"

    @property
    def device_endpoint(self) -> str:
        return f"{self.issuer}/device_authorization"

    @property
    def authorization_endpoint(self) -> str:
        return f"{self.issuer}/authorize"

    # ── what a person does ──

    @property
    def user_codes(self) -> list[str]:
        return [device.user_code for device in self._devices.values()]

    def decide(self, user_code: str, decision: str = "agreed") -> None:
        """Agree to what bears that code; or ``access_denied``."""
        (device,) = [device for device in self._devices.values() if device.user_code == user_code]
        device.decision = decision

    def revoke(self) -> None:
        """Take back all that anybody agreed to."""
        for family in self.families:
            family.revoked = True

    def is_good(self, access_token: str) -> bool:
        """Whether an access token is good now."""
        return any(
            not family.revoked and family.access.get(access_token, 0.0) > time.monotonic()
            for family in self.families
        )

    def end_access_tokens(self) -> None:
        """Let all access tokens end before their time; what they are renewed with stays good."""
        for family in self.families:
            family.access.clear()

    # ── requests ──

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, Any], str]:
        """Status, JSON, and a Location where it redirects."""
        url = urlsplit(target)
        self.requests.append(f"{method} {url.path}")
        if method == "GET" and url.path.startswith("/.well-known/"):
            return self._metadata(url.path.removeprefix("/.well-known/"))
        if method == "GET" and url.path == "/api":
            scheme, _, token = headers.get("Authorization", "").partition(" ")
            good = scheme == "Bearer" and self.is_good(token)
            return (200, {"good": True}, "") if good else (401, {"message": "sign in"}, "")
        if method == "GET" and url.path == "/authorize":
            return self._authorize(dict(parse_qsl(url.query)))
        if method != "POST" or url.path not in ("/token", "/device_authorization") or url.query:
            return 404, {"message": "no such page"}, ""
        kind = headers.get("Content-Type", "")
        if kind != "application/x-www-form-urlencoded":
            return 400, {"error": "invalid_request", "error_description": f"not a form: {kind}"}, ""
        form = parse_qs(body.decode(), strict_parsing=True)
        if any(len(values) > 1 for values in form.values()):
            return 400, {"error": "invalid_request", "error_description": "a parameter is there twice"}, ""
        first = {name: values[0] for name, values in form.items()}
        answer = self._token if url.path == "/token" else self._device
        try:
            client_id = self._client(first, headers)
            return 200, answer(client_id, first), ""
        except _Refusal as refusal:
            if url.path == "/token":
                self.asked.append((first.get("grant_type", ""), str(refusal)))
            return refusal.status, refusal.body, ""

    def _metadata(self, name: str) -> tuple[int, dict[str, Any], str]:
        if name != self.policy.metadata:
            return 404, {"message": "no such page"}, ""
        document = {
            "issuer": self.policy.issuer or self.issuer,
            "token_endpoint": self.token_endpoint,
            "authorization_endpoint": self.authorization_endpoint,
            "device_authorization_endpoint": self.device_endpoint,
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
        }
        return 200, document, ""

    def _client(self, form: Mapping[str, str], headers: Mapping[str, str]) -> str:
        scheme, _, pair = headers.get("Authorization", "").partition(" ")
        client_id, secret, how = (
            form.get("client_id", ""),
            form.get("client_secret", ""),
            "client_secret_post",
        )
        if scheme:
            if secret:
                raise _Refusal("invalid_request")
            named, _, secret = base64.b64decode(pair).decode().partition(":")
            client_id, secret, how = unquote_plus(named), unquote_plus(secret), "client_secret_basic"
        client = self.clients.get(client_id)
        if client is None or client.secret != secret or (secret and how not in client.auth):
            raise _Refusal("invalid_client", 401)
        return client_id

    def _device(self, client_id: str, form: Mapping[str, str]) -> dict[str, Any]:
        if DEVICE_GRANT not in self.clients[client_id].grants:
            raise _Refusal("unauthorized_client")
        code, user_code = secrets.token_urlsafe(24), f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper()
        interval = 5.0 if self.policy.interval is None else self.policy.interval
        ends = time.monotonic() + self.policy.device_lifetime
        self._devices[code] = _Device(client_id, form.get("scope", ""), user_code, interval, ends)
        self.given.add(code)
        reply: dict[str, Any] = {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": f"{self.issuer}/device",
            "expires_in": self.policy.device_lifetime,
        }
        if self.policy.complete:
            reply["verification_uri_complete"] = f"{self.issuer}/device?user_code={user_code}"
        if self.policy.interval is not None:
            reply["interval"] = self.policy.interval
        return reply

    def _authorize(self, query: Mapping[str, str]) -> tuple[int, dict[str, Any], str]:
        """A person who agrees at once. What must not be redirected to is refused here (RFC 6749, 4.1.2.1)."""
        redirect = urlsplit(query.get("redirect_uri", ""))
        is_loopback = (redirect.scheme, redirect.hostname, redirect.path) == ("http", "127.0.0.1", "/")
        if query.get("client_id") not in self.clients or not is_loopback or not redirect.port:
            return 400, {"error": "invalid_request"}, ""
        answer = {"state": query.get("state", ""), "iss": self.issuer}
        if (
            query.get("response_type") != "code"
            or query.get("code_challenge_method") != "S256"
            or len(query.get("code_challenge", "")) != 43
        ):
            answer["error"] = "invalid_request"
        else:
            code = answer["code"] = secrets.token_urlsafe(24)
            self.given.add(code)
            self._codes[code] = _Code(
                query["client_id"], query.get("scope", ""), query["redirect_uri"], query["code_challenge"]
            )
        return 302, {}, f"{query['redirect_uri']}?{urlencode(answer)}"

    def _token(self, client_id: str, form: Mapping[str, str]) -> dict[str, Any]:
        if self.policy.hold is not None:
            self.policy.hold.wait(20)
        if self.policy.fail:
            self.policy.fail -= 1
            raise _Refusal("temporarily_unavailable", self.policy.fail_status)
        kind = form.get("grant_type", "")
        if kind not in GRANTS:
            raise _Refusal("unsupported_grant_type")
        if kind not in self.clients[client_id].grants:
            raise _Refusal("unauthorized_client")
        with self._lock:
            family = {
                DEVICE_GRANT: self._by_device,
                "authorization_code": self._by_code,
                "refresh_token": self._by_refresh,
                "client_credentials": self._by_client,
            }[kind](client_id, form)
            self.asked.append((kind, "ok"))
            return self._tokens(family, with_refresh=kind != "client_credentials")

    def _by_device(self, client_id: str, form: Mapping[str, str]) -> _Family:
        device = self._devices.get(form.get("device_code", ""))
        if device is None or device.client_id != client_id:
            raise _Refusal("invalid_grant")
        now = time.monotonic()
        if now >= device.ends:
            raise _Refusal("expired_token")
        early, device.polled = now - device.polled < device.interval * 0.9, now
        if early:
            device.interval += 5
            raise _Refusal("slow_down")
        if self.policy.pending:
            self.policy.pending -= 1
            raise _Refusal("authorization_pending")
        if device.decision != "agreed":
            raise _Refusal(device.decision)
        del self._devices[form["device_code"]]
        return self._family(client_id, device.scope)

    def _by_code(self, client_id: str, form: Mapping[str, str]) -> _Family:
        code = self._codes.get(form.get("code", ""))
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        if code is None or code.client_id != client_id or code.redirect_uri != form.get("redirect_uri"):
            raise _Refusal("invalid_grant")
        if code.family is not None:
            code.family.revoked = True
            raise _Refusal("invalid_grant")
        if code.challenge != challenge:
            raise _Refusal("invalid_grant")
        code.family = self._family(client_id, code.scope)
        return code.family

    def _by_refresh(self, client_id: str, form: Mapping[str, str]) -> _Family:
        token = form.get("refresh_token", "")
        for family in self.families:
            if token in family.used:
                family.revoked = True
            if token and token == family.refresh and not family.revoked and family.client_id == client_id:
                return family
        raise _Refusal("invalid_grant")

    def _by_client(self, client_id: str, form: Mapping[str, str]) -> _Family:
        if not self.clients[client_id].secret:
            raise _Refusal("unauthorized_client")
        return self._family(client_id, form.get("scope", ""))

    def _family(self, client_id: str, scope: str) -> _Family:
        self.families.append(_Family(client_id, scope))
        return self.families[-1]

    def _tokens(self, family: _Family, *, with_refresh: bool) -> dict[str, Any]:
        token = self.policy.access_token()
        lifetime = self.policy.lifetime
        family.access[token] = time.monotonic() + (lifetime if lifetime is not None else 1e9)
        reply: dict[str, Any] = {"access_token": token, "token_type": "Bearer", "scope": family.scope}
        if lifetime is not None:
            reply["expires_in"] = lifetime
        if with_refresh and self.policy.refresh_tokens and (self.policy.rotate or not family.refresh):
            family.used.add(family.refresh)
            family.used.discard("")
            family.refresh = f"rt-{secrets.token_urlsafe(24)}"
            reply["refresh_token"] = family.refresh
        self.given |= {token, family.refresh} - {""}
        return reply


class LivePassword(str):
    """A password that equals every access token that a server holds good: for registries' tables of users."""

    server: OAuthServer

    @classmethod
    def of(cls, server: OAuthServer) -> LivePassword:
        password = cls("an access token")
        password.server = server
        return password

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.server.is_good(other)

    __hash__ = str.__hash__


def _handler(server: OAuthServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        def _answer(self, body: bytes) -> None:
            status, document, location = server.answer(self.command, self.path, dict(self.headers), body)
            data = json.dumps(document).encode()
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Handler
