"""Getting a bearer token: the requests to make and the replies to read, without any I/O.

Sources: distribution's token specification (GET) and its OAuth2 form (POST). Which form goes first:

- nobody signed in: GET without credentials;
- a password: GET with Basic, which every token server takes; only where that is refused as such (400, 404, 405, 501,
  or a 401 whose challenge has no Basic) the POST form with ``grant_type=password``;
- an identity token, and the refresh token that an earlier reply gave: POST with ``grant_type=refresh_token``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlencode

import httpx
import msgspec

from regfs.auth.challenges import Challenge, parse_challenges
from regfs.auth.words import words_of
from regfs.errors import (
    BadReply,
    CredentialRefused,
    Forbidden,
    NotSignedIn,
    RateLimited,
    RegfsError,
    ServerFailed,
    UnsafeTarget,
)
from regfs.ports import Credential, CredentialKind

CLIENT_ID: Final = "regfs"
DEFAULT_LIFETIME: Final = 60.0
"""Seconds that a token lives whose reply does not say; the specification's own number."""
MAX_LIFETIME: Final = 86400.0

_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+")
_NO_SUCH_FORM: Final = frozenset({400, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class Ask:
    """What a registry wants to see: Basic, or a token from ``realm`` (an absolute URL) for ``service`` and ``scopes``."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()

    @classmethod
    def of(cls, challenge: Challenge, url: httpx.URL) -> Ask:
        """Read a supported challenge to a request for ``url``. Raises UnsafeTarget where its realm must not be used."""
        if challenge.scheme == "basic":
            return cls("basic")
        return cls("bearer", token_endpoint(challenge.realm, url), challenge.service, challenge.scopes)

    @property
    def host(self) -> str:
        """The token endpoint's host, for people."""
        return httpx.URL(self.realm).netloc.decode("ascii")


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A token endpoint's reply, its body read to the end."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """A token. ``lifetime`` in seconds from when it was asked for; ``refresh`` is what to ask the next one with.

    A Grant without ``refresh``, where one was given to ask with, says that the endpoint does not take those.
    """

    token: str = field(repr=False)
    lifetime: float = DEFAULT_LIFETIME
    refresh: str = field(default="", repr=False)


TokenSteps = Generator[httpx.Request, TokenReply, Grant]


def token_endpoint(realm: str, url: httpx.URL) -> str:
    """Resolve a realm against the request it was the answer to. UnsafeTarget unless it is https, or both are http."""
    try:
        named, resolved = httpx.URL(realm), url.join(realm)
    except (httpx.InvalidURL, ValueError, TypeError) as error:
        raise UnsafeTarget("the realm of the challenge is no URL", registry=url.host) from error
    if resolved.scheme != "https" and not (resolved.scheme == "http" and url.scheme == "http"):
        raise UnsafeTarget(
            f"the registry names a token endpoint that is not https ({resolved.scheme}://{resolved.host}); nothing was sent there",
            registry=url.host,
        )
    if resolved.userinfo or not resolved.host or (named.scheme and not named.host):
        raise UnsafeTarget("the realm of the challenge is not the URL of a token endpoint", registry=url.host)
    return str(resolved.copy_with(fragment=None))


def basic_header(credential: Credential) -> str:
    """The value of an Authorization header of the Basic scheme, in UTF-8 (RFC 7617)."""
    pair = f"{credential.username}:{credential.secret}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def token_steps(
    ask: Ask, credential: Credential | None, refresh: str = "", now: float | None = None
) -> TokenSteps:
    """Get a token: yields requests, takes replies, returns a Grant.

    ``refresh`` is the refresh token of an earlier Grant; where it is no longer taken, the credential is used again.
    ``now`` is the time in seconds since 1970, for replies that bear no date of their own.
    Raises NotSignedIn, Forbidden, BadReply, and ServerFailed or RateLimited, which may be tried again.
    """
    if refresh:
        reply = yield _post(ask, grant_type="refresh_token", refresh_token=refresh)
        if reply.status == 200:
            return _grant(ask, reply, refresh, now)
        _raise_if_passing(ask, reply, credential)
    grant = yield from _by_credential(ask, credential, now)
    return replace(grant, refresh="") if refresh else grant


def _by_credential(ask: Ask, credential: Credential | None, now: float | None) -> TokenSteps:
    if credential is None:
        return _grant(ask, _accepted(ask, (yield _get(ask)), None), "", now)
    if credential.kind is CredentialKind.IDENTITY_TOKEN:
        reply = yield _post(ask, grant_type="refresh_token", refresh_token=credential.secret)
        if reply.status in (404, 405, 501):
            raise NotSignedIn(f"the token endpoint {ask.host} takes no identity tokens")
        return _grant(ask, _accepted(ask, reply, credential), "", now)
    reply = yield _get(ask, credential)
    if _refuses_basic(reply):
        reply = yield _post(
            ask, grant_type="password", username=credential.username, password=credential.secret
        )
        if reply.status in _NO_SUCH_FORM and not _is_wrong_password(reply):
            raise NotSignedIn(
                f"the token endpoint {ask.host} refuses basic credentials",
                words=words_of(reply.body, credential),
            )
    return _grant(ask, _accepted(ask, reply, credential), "", now)


def _get(ask: Ask, credential: Credential | None = None) -> httpx.Request:
    url = httpx.URL(ask.realm)
    parameters = url.params.set("client_id", CLIENT_ID)
    headers = {}
    if ask.service:
        parameters = parameters.set("service", ask.service)
    for scope in ask.scopes:
        parameters = parameters.add("scope", scope)
    if credential is not None:
        parameters = parameters.set("account", credential.username)
        headers["Authorization"] = basic_header(credential)
    return httpx.Request("GET", url.copy_with(params=parameters), headers=headers)


def _post(ask: Ask, **form: str) -> httpx.Request:
    form["client_id"] = CLIENT_ID
    if ask.service:
        form["service"] = ask.service
    if ask.scopes:
        form["scope"] = " ".join(ask.scopes)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return httpx.Request("POST", ask.realm, headers=headers, content=urlencode(form).encode("ascii"))


def _refuses_basic(reply: TokenReply) -> bool:
    """Whether the endpoint refuses this form of asking, rather than this user name and password."""
    if reply.status != 401:
        return reply.status in _NO_SUCH_FORM
    challenges = parse_challenges(reply.headers.get_list("www-authenticate"))
    return bool(challenges) and not any(challenge.scheme == "basic" for challenge in challenges)


class _OAuthError(msgspec.Struct):
    error: str = ""


def _is_wrong_password(reply: TokenReply) -> bool:
    """RFC 6749, 5.2: a 400 of ``invalid_grant`` says that the endpoint knows the form, and not this password."""
    try:
        return msgspec.json.decode(reply.body, type=_OAuthError).error == "invalid_grant"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _accepted(ask: Ask, reply: TokenReply, credential: Credential | None) -> TokenReply:
    if reply.status == 200:
        return reply
    _raise_if_passing(ask, reply, credential)
    raise _refusal(ask, reply, credential)


def _refusal(ask: Ask, reply: TokenReply, credential: Credential | None) -> RegfsError:
    words = words_of(reply.body, credential)
    if reply.status == 401 or (reply.status == 400 and _is_wrong_password(reply)):
        return wrong_credential(credential, words)
    if reply.status == 403:
        if credential is None:
            return NotSignedIn(f"the token endpoint {ask.host} gives no token to the anonymous", words=words)
        return Forbidden(
            f"the token endpoint {ask.host} does not grant that to {_who(credential)}", words=words
        )
    return BadReply(f"the token endpoint {ask.host} answered {reply.status}", words=words)


def wrong_credential(credential: Credential | None, words: str = "", registry: str = "") -> NotSignedIn:
    """The error for credentials that are not taken (None: for having none)."""
    if credential is None:
        return NotSignedIn(
            "the registry wants a sign-in, and there are no credentials for it",
            words=words,
            registry=registry,
        )
    origin = f", from {credential.origin}" if credential.origin else ""
    if credential.kind is not CredentialKind.PASSWORD:
        return CredentialRefused(
            f"the {credential.kind.value} is not taken any more{origin}", words=words, registry=registry
        )
    return CredentialRefused(
        f"wrong user name or password (for {_who(credential)}{origin})", words=words, registry=registry
    )


def _who(credential: Credential) -> str:
    return credential.username or f"this {credential.kind.value}"


def _raise_if_passing(ask: Ask, reply: TokenReply, credential: Credential | None) -> None:
    """Raise for what may be gone at the next try."""
    if reply.status == 429:
        raise RateLimited(
            f"the token endpoint {ask.host} is asked too often", retry_after=_retry_after(reply.headers)
        )
    if (reply.status >= 500 and reply.status != 501) or reply.status == 408:
        raise ServerFailed(
            f"the token endpoint {ask.host} answered {reply.status}", words=words_of(reply.body, credential)
        )


def _retry_after(headers: httpx.Headers) -> float | None:
    """``Retry-After`` in seconds, where it is a number: no token server is known to send a date."""
    text = headers.get("retry-after", "")
    return float(text) if re.fullmatch(r"[0-9]{1,6}", text) else None


class _Body(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None
    issued_at: str | None = None
    refresh_token: str | None = None


def _grant(ask: Ask, reply: TokenReply, refresh: str, now: float | None) -> Grant:
    try:
        body = msgspec.json.decode(reply.body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReply(f"the token endpoint {ask.host} gave no token reply that can be read") from error
    token = body.token or body.access_token or ""
    if not _HEADER_SAFE.fullmatch(token):
        raise BadReply(
            f"the token endpoint {ask.host} gave no token"
            if not token
            else f"the token endpoint {ask.host} gave a token that is none"
        )
    return Grant(token, _lifetime(body, reply.headers, now), body.refresh_token or refresh)


def _lifetime(body: _Body, headers: httpx.Headers, now: float | None) -> float:
    """How long the token still lives. Its age is told by the server's own clock, where the reply has a Date."""
    expires = body.expires_in
    lifetime = min(expires, MAX_LIFETIME) if expires is not None and expires > 0 else DEFAULT_LIFETIME
    issued, read = _rfc3339(body.issued_at), _date(headers)
    here = read if read is not None else now
    if issued is None or here is None:
        return lifetime
    age = here - issued
    # A token that is older than it can be, or comes from the future, only shows that two clocks differ.
    return lifetime - age if 0 < age < lifetime else lifetime


def _rfc3339(text: str | None) -> float | None:
    """Seconds since 1970. Go writes nine digits of a second, which `datetime` cuts to six."""
    try:
        moment = datetime.fromisoformat(text or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _date(headers: httpx.Headers) -> float | None:
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
