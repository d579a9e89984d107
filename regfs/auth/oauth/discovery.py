"""Looking up an authorization server's endpoints by its issuer: RFC 8414, and OpenID Connect Discovery 1.0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import msgspec

from regfs.auth.oauth.messages import shown_url
from regfs.errors import BadReply, NotSignedIn, ServerFailed, UnsafeTarget
from regfs.ports import Exchange, OAuthServer


class _Metadata(msgspec.Struct):
    issuer: str
    token_endpoint: str = ""
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    token_endpoint_auth_methods_supported: list[str] = []


async def discovered(server: OAuthServer, exchange: Exchange) -> tuple[OAuthServer, bool]:
    """The server with the endpoints that its issuer publishes, where they are not given; and whether a client's secret
    goes by Basic (RFC 8414, 2: that is so where nothing is said).

    Raises NotSignedIn where there is no such document, BadReply where it is another issuer's, and what `Exchange` raises.
    """
    found = await _metadata(server.issuer, exchange)
    for url in (found.token_endpoint, found.authorization_endpoint, found.device_authorization_endpoint):
        if url:
            shown_url(url, server.issuer)
    methods = found.token_endpoint_auth_methods_supported
    return replace(
        server,
        token_endpoint=server.token_endpoint or found.token_endpoint,
        device_endpoint=server.device_endpoint or found.device_authorization_endpoint,
        authorization_endpoint=server.authorization_endpoint or found.authorization_endpoint,
    ), not methods or "client_secret_basic" in methods


def well_known(issuer: str) -> Iterator[str]:
    """Where an issuer's document may be. UnsafeTarget: an issuer is a URL without query and fragment (RFC 8414, 2)."""
    shown_url(issuer, issuer)
    parts = urlsplit(issuer)
    if parts.query or parts.fragment:
        raise UnsafeTarget("an issuer's URL has neither query nor fragment")
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{origin}/.well-known/oauth-authorization-server{path}"
    yield f"{origin}{path}/.well-known/openid-configuration"


async def _metadata(issuer: str, exchange: Exchange) -> _Metadata:
    for url in well_known(issuer):
        reply = await exchange(httpx.Request("GET", url, headers={"Accept": "application/json"}))
        if reply.status_code >= 500:
            raise ServerFailed(f"{urlsplit(url).netloc} answered {reply.status_code}")
        if reply.status_code == 200 and (found := _read(reply)) is not None:
            if found.issuer != issuer:
                raise BadReply(
                    f"the document at {url} is the issuer {found.issuer[:200]!r}'s, not {issuer!r}'s: "
                    "where that is meant, give it as it is spelled there"
                )
            return found
    raise NotSignedIn(
        f"{issuer} publishes no endpoints for sign-ins (RFC 8414, OpenID Connect); name them by options"
    )


def _read(reply: httpx.Response) -> _Metadata | None:
    """Some servers answer every path with a page of their own."""
    try:
        return msgspec.json.decode(reply.content, type=_Metadata)
    except (ValueError, RecursionError):
        return None
