"""A token server as Docker's registry trusts it: JWTs signed with a key of its own, by GET and by POST.

Protocol: distribution's docs/spec/auth, token.md (GET), oauth.md (POST) and jwt.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER = "regfs tests"
SERVICE = "regfs-test-registry"

Algorithm = Literal["ES256", "RS256"]


@dataclass(frozen=True)
class TokenRequest:
    """One request for a token: how it came, for whom, what it asked for and what it got (status 200: a token)."""

    method: str
    account: str
    scopes: tuple[str, ...]
    status: int
    kind: str
    """anonymous, basic, password or refresh_token."""


@dataclass
class TokenPolicy:
    """How the server behaves. May be changed while it runs."""

    anonymous: bool = False
    post: int = 200
    """The status of POST; anything but 200 refuses the OAuth2 form, as many servers do (404, 405)."""
    expires_in: int | None = 300
    """The lifetime that the reply states and the token has; None: not stated (then 60 s)."""
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Actions allowed, by repository (`registry:catalog` as ``catalog``); one that is not named allows all."""
    fail: int = 0
    """Answer this many next requests with 503."""


class TokenServer:
    """A running token server. ``users`` maps user names to passwords."""

    def __init__(self, folder: Path, users: Mapping[str, str], algorithm: Algorithm = "ES256") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.users = dict(users)
        self.policy = TokenPolicy()
        self.requests: list[TokenRequest] = []
        self.refresh_tokens: dict[str, str] = {}
        """Refresh (identity) tokens, and whose they are."""
        self.bundle = folder / "token.crt"
        self._signer = _Signer(algorithm)
        self.bundle.write_bytes(self._signer.certificate)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def realm(self) -> str:
        """The URL that challenges name."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    @property
    def tokens(self) -> int:
        """How many tokens it gave."""
        return sum(request.status == 200 for request in self.requests)

    def registry_settings(self) -> dict[str, str]:
        """The ``auth.token`` part of Docker's registry's config."""
        bundle = str(self.bundle)
        return {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}

    def new_refresh_token(self, user: str) -> str:
        """Make an identity token for ``user``, as `docker login` keeps one."""
        token = secrets.token_urlsafe(24)
        self.refresh_tokens[token] = user
        return token

    def sign(self, account: str, access: list[dict[str, Any]], lifetime: int = 300) -> str:
        """A JWT that Docker's registry accepts. It wants whole seconds, and ``aud`` as a string."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": account, "jti": secrets.token_hex(8)}
        return self._signer.sign(
            {**claims, "iat": now, "nbf": now - 5, "exp": now + lifetime, "access": access}
        )

    def answer(self, method: str, form: Mapping[str, list[str]], authorization: str) -> tuple[int, bytes]:
        """What a request gets: status and JSON."""
        scopes = tuple(scope for value in form.get("scope", []) for scope in value.split())
        kind, account = self._account(method, form, authorization)
        status = self._status(method, account)
        self.requests.append(TokenRequest(method, account or "", scopes, status, kind))
        if status != 200 or account is None:
            return status, json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "no token"}]}).encode()
        return 200, json.dumps(self._reply(method, form, account, scopes)).encode()

    def _reply(
        self, method: str, form: Mapping[str, list[str]], account: str, scopes: tuple[str, ...]
    ) -> dict[str, object]:
        lifetime = self.policy.expires_in
        token = self.sign(account, [self._grant(scope) for scope in scopes], lifetime or 60)
        name = "access_token" if method == "POST" else "token"
        reply: dict[str, object] = {name: token, "issued_at": datetime.now(UTC).isoformat()}
        if lifetime is not None:
            reply["expires_in"] = lifetime
        if "offline" in form.get("access_type", []) or "true" in form.get("offline_token", []):
            reply["refresh_token"] = self.new_refresh_token(account)
        return reply

    def _grant(self, scope: str) -> dict[str, object]:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        wanted = actions.split(",")
        allowed = self.policy.allowed.get(name)
        granted = wanted if allowed is None else [action for action in wanted if action in allowed]
        return {"type": kind, "name": name, "actions": granted}

    def _account(
        self, method: str, form: Mapping[str, list[str]], authorization: str
    ) -> tuple[str, str | None]:
        if method == "POST":
            return self._account_of_form(form)
        if not authorization:
            return "anonymous", "" if self.policy.anonymous else None
        user, _, password = base64.b64decode(authorization.partition(" ")[2]).decode().partition(":")
        return "basic", user if self.users.get(user) == password else None

    def _account_of_form(self, form: Mapping[str, list[str]]) -> tuple[str, str | None]:
        first = {name: values[0] for name, values in form.items()}
        if first.get("grant_type") == "refresh_token":
            return "refresh_token", self.refresh_tokens.get(first.get("refresh_token", ""))
        user = first.get("username", "")
        right = first.get("grant_type") == "password" and self.users.get(user) == first.get("password")
        return "password", user if right else None

    def _status(self, method: str, account: str | None) -> int:
        if self.policy.fail > 0:
            self.policy.fail -= 1
            return 503
        if method == "POST" and self.policy.post != 200:
            return self.policy.post
        return 401 if account is None else 200


class _Signer:
    """Signs JWTs as Docker's registry 2 checks them: the key is named by libtrust's fingerprint."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )

    @property
    def certificate(self) -> bytes:
        """A self-signed certificate of the key, as PEM: the registry's ``rootcertbundle``."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign(self, claims: Mapping[str, object]) -> str:
        """The compact form: header, claims and signature."""
        header = {"typ": "JWT", "alg": self._algorithm, "kid": self._key_id()}
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_base64url(self._signature(text.encode()))}"

    def _signature(self, text: bytes) -> bytes:
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def _key_id(self) -> str:
        spki = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = base64.b32encode(hashlib.sha256(spki).digest()[:30]).decode()
        return ":".join(text[start : start + 4] for start in range(0, 48, 4))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._reply("GET", parse_qs(urlsplit(self.path).query))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._reply("POST", parse_qs(body.decode()))

        def _reply(self, method: str, form: Mapping[str, list[str]]) -> None:
            status, body = server.answer(method, form, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Print nothing: a request may hold a secret."""

    return Handler
