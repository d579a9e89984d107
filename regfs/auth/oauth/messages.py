"""What is sent to an authorization server and what comes back, without any I/O.

Sources: RFC 6749 (OAuth 2.0), 7636 (PKCE), 8628 (devices). The forms are oauthlib's; replies are read here, since
what a server says is not trusted: sizes, types and characters are checked before anything is believed.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote_plus, urlsplit

import httpx
import msgspec

from regfs.auth.oauth.grant import Tokens
from regfs.auth.words import blotted
from regfs.errors import (
    BadReply,
    DeadlineExceeded,
    RateLimited,
    RegfsError,
    ServerFailed,
    Unreachable,
    UnsafeTarget,
)

if TYPE_CHECKING:
    from oauthlib.oauth2 import WebApplicationClient

T = TypeVar("T")

DEFAULT_INTERVAL: Final = 5.0
"""RFC 8628, 3.2: the seconds between two polls where the server does not say."""
MAX_INTERVAL: Final = 60.0
MAX_CODE_LIFE: Final = 1800.0
MAX_LIFETIME: Final = 366 * 86400.0

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_USER_CODE: Final = re.compile(r"[\x20-\x7e]{1,64}")
_ERROR: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,80}")


class OAuthError(Exception):
    """An error of the protocol (RFC 6749, 5.2; RFC 8628, 3.5): its ``code``, and the server's ``words``."""

    def __init__(self, code: str, words: str = "", interval: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.words = words
        self.interval = interval


@dataclass(frozen=True, slots=True)
class ClientAuth:
    """Who asks: an application, with a secret or (a public one) without. ``basic``: see `Grant`."""

    client_id: str
    secret: str = field(default="", repr=False)
    basic: bool = False


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A device authorization (RFC 8628, 3.2). ``complete`` is a URL with the code in it, where there is one."""

    code: str = field(repr=False)
    user_code: str
    url: str
    complete: str
    lifetime: float
    interval: float


# ── requests ─────────────────────────────────────────────────────────────────────────────────────


def device_authorization(endpoint: str, client: ClientAuth, scopes: Sequence[str]) -> httpx.Request:
    """Ask for a device code (RFC 8628, 3.1)."""
    from oauthlib.common import urlencode

    pairs = [("client_id", client.client_id)]
    if scopes:
        pairs.append(("scope", " ".join(scopes)))
    return _form(endpoint, urlencode(pairs), client)


def by_device(endpoint: str, client: ClientAuth, device_code: str) -> httpx.Request:
    """Ask whether the person has agreed (RFC 8628, 3.4)."""
    from oauthlib.oauth2 import DeviceClient

    body = DeviceClient(client.client_id).prepare_request_body(device_code, include_client_id=True)
    return _form(endpoint, body, client)


def by_code(endpoint: str, client: ClientAuth, code: str, redirect_uri: str, verifier: str) -> httpx.Request:
    """Exchange an authorization code (RFC 6749, 4.1.3; RFC 7636, 4.5)."""
    body = _web(client).prepare_request_body(code=code, redirect_uri=redirect_uri, code_verifier=verifier)
    return _form(endpoint, body, client)


def by_client(endpoint: str, client: ClientAuth, scopes: Sequence[str]) -> httpx.Request:
    """Ask in the client's own name (RFC 6749, 4.4.2)."""
    from oauthlib.oauth2 import BackendApplicationClient

    application = BackendApplicationClient(client.client_id)
    return _form(
        endpoint, application.prepare_request_body(scope=list(scopes) or None, include_client_id=True), client
    )


def by_refresh(endpoint: str, client: ClientAuth, refresh_token: str) -> httpx.Request:
    """Ask with a refresh token, for what was granted before (RFC 6749, 6)."""
    body = _web(client).prepare_refresh_body(
        refresh_token=refresh_token, client_id=client.client_id, include_client_id=True
    )
    return _form(endpoint, body, client)


def pkce() -> tuple[str, str]:
    """A code verifier and its S256 challenge (RFC 7636, 4.1 and 4.2)."""
    client = _web(ClientAuth("-"))
    verifier = client.create_code_verifier(64)
    return verifier, client.create_code_challenge(verifier, "S256")


def authorization_url(
    endpoint: str, client_id: str, redirect_uri: str, scopes: Sequence[str], state: str, challenge: str
) -> str:
    """Where the person's browser goes (RFC 6749, 4.1.1; RFC 7636, 4.3). A query that is there already stays."""
    from oauthlib.common import add_params_to_uri

    pairs = [
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", redirect_uri),
        ("state", state),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
    ]
    if scopes:
        pairs.append(("scope", " ".join(scopes)))
    return str(add_params_to_uri(endpoint, pairs))


def _web(client: ClientAuth) -> WebApplicationClient:
    from oauthlib.oauth2 import WebApplicationClient

    return WebApplicationClient(client.client_id)


def _form(endpoint: str, body: str, client: ClientAuth) -> httpx.Request:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    if client.secret and client.basic:
        # RFC 6749, 2.3.1: each half is form-encoded before the pair is.
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    elif client.secret:
        body = f"{body}&client_secret={quote_plus(client.secret)}"
    return httpx.Request("POST", endpoint, headers=headers, content=body.encode())


# ── replies ──────────────────────────────────────────────────────────────────────────────────────


class _Error(msgspec.Struct):
    error: str = ""
    error_description: str = ""
    interval: float | None = None


class _TokenBody(msgspec.Struct):
    access_token: str
    token_type: str = "bearer"
    expires_in: float | None = None
    refresh_token: str | None = None
    scope: str | None = None


class _DeviceBody(msgspec.Struct):
    device_code: str
    user_code: str
    verification_uri: str = ""
    verification_url: str = ""
    """How Google spells it."""
    verification_uri_complete: str | None = None
    expires_in: float = MAX_CODE_LIFE
    interval: float = DEFAULT_INTERVAL


def token_reply(reply: httpx.Response) -> Tokens:
    """Read a token endpoint's reply. Raises OAuthError, ServerFailed, RateLimited, BadReply."""
    where = _checked(reply)
    body = _decoded(reply, _TokenBody, f"{where} gave no token reply that can be read")
    if body.token_type.lower() not in ("bearer", ""):
        raise BadReply(f"{where} gave a token of the type {body.token_type[:40]!r}, which regfs cannot use")
    tokens = body.access_token, body.refresh_token or ""
    if not _TOKEN.fullmatch(tokens[0]) or (tokens[1] and not _TOKEN.fullmatch(tokens[1])):
        raise BadReply(f"{where} gave a token that is none")
    lifetime = body.expires_in
    if lifetime is not None:
        lifetime = min(lifetime, MAX_LIFETIME) if lifetime > 0 else None
    return Tokens(*tokens, lifetime, tuple((body.scope or "").replace(",", " ").split())[:100])


def device_reply(reply: httpx.Response, endpoint: str) -> DeviceCode:
    """Read a device endpoint's reply; what it wants shown is a URL, and a code of one short line."""
    where = _checked(reply)
    body = _decoded(reply, _DeviceBody, f"{where} gave no device code that can be read")
    url = body.verification_uri or body.verification_url
    complete = body.verification_uri_complete or ""
    if not _TOKEN.fullmatch(body.device_code) or not _USER_CODE.fullmatch(body.user_code):
        raise BadReply(f"{where} gave a device code that is none")
    for shown in (url, complete):
        if shown or shown is url:
            shown_url(shown, endpoint)
    lifetime = min(max(body.expires_in, 1.0), MAX_CODE_LIFE)
    interval = min(max(body.interval, 0.0), MAX_INTERVAL)
    return DeviceCode(body.device_code, body.user_code, url, complete, lifetime, interval)


def shown_url(url: str, endpoint: str) -> str:
    """Give back a URL that a person may be sent to. UnsafeTarget: it is none, or not https beside an https endpoint."""
    parts = urlsplit(url)
    secure = urlsplit(endpoint).scheme == "https"
    schemes = ("https",) if secure else ("https", "http")
    if not re.fullmatch(r"[\x21-\x7e]{8,2000}", url) or parts.scheme not in schemes or not parts.hostname:
        raise UnsafeTarget(f"{_host(endpoint)} names a page to open that is no https URL")
    if "@" in parts.netloc:
        raise UnsafeTarget(f"{_host(endpoint)} names a page to open with a user name in its URL")
    return url


def _checked(reply: httpx.Response) -> str:
    """The host that answered; raises for whatever is no success. GitHub sends errors with the status 200."""
    where = reply.request.url.netloc.decode("ascii")
    if reply.status_code == 429:
        raise RateLimited(f"{where} is asked too often", retry_after=_seconds(reply), registry=where)
    if reply.status_code >= 500:
        raise ServerFailed(f"{where} answered {reply.status_code}", registry=where)
    if 300 <= reply.status_code < 400:
        raise BadReply(f"{where} redirects a sign-in elsewhere, which is not followed", registry=where)
    said = _error(reply)
    if said is not None:
        raise said
    if reply.status_code != 200:
        raise BadReply(f"{where} answered {reply.status_code} to a sign-in", registry=where)
    return where


def _error(reply: httpx.Response) -> OAuthError | None:
    try:
        said = msgspec.json.decode(reply.content, type=_Error)
    except (ValueError, RecursionError):
        return OAuthError("invalid_client") if reply.status_code == 401 else None
    if not _ERROR.fullmatch(said.error):
        return None
    return OAuthError(said.error, blotted(said.error_description), said.interval)


def _decoded(reply: httpx.Response, shape: type[T], message: str) -> T:
    try:
        return msgspec.json.decode(reply.content, type=shape)
    except (ValueError, RecursionError):
        raise BadReply(message, registry=_host(str(reply.request.url))) from None


def _seconds(reply: httpx.Response) -> float | None:
    text = reply.headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2][:100]


def is_passing(error: RegfsError) -> bool:
    """Whether the same request may be answered in a while."""
    return isinstance(error, RateLimited | ServerFailed | DeadlineExceeded | Unreachable)
