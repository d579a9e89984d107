"""GitHub's container registry: ghcr.io, ``containers.NAME.ghe.com``, and GitHub Enterprise Server's ``containers.HOST``.

Manifests, blobs and tags by the registry; owners, packages, dates and deletion by GitHub's REST API beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regfs.errors import ConfigError
from regfs.ports import (
    Claim,
    Counts,
    DatesTags,
    DeletesTags,
    Field,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    OAuthServer,
    Recovers,
    ResolvesTags,
)
from regfs.providers.generic import GenericProvider
from regfs.reference import Address

if TYPE_CHECKING:
    from regfs.connection import Connection
    from regfs.ports import CredentialSource, Source, Tools

SCOPES: Final = ("read:packages", "write:packages", "delete:packages", "read:org")
"""Reading; the two that a deletion takes; and the organisations of whoever signs in."""

TOKEN_USER: Final = "x-access-token"
"""GitHub's registry looks at the token alone; this is the user name that goes with one whose owner is not known."""

_RESIDENT: Final = re.compile(r"containers\.([a-z0-9-]+\.ghe\.com)")
_NOT_OURS: Final = frozenset({"docker.pkg.github.com"})
"""The registry before this one: another protocol's leftovers, which ghcr.io took over."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the services beside one registry are: the REST API, the site where people sign in, and that site's host."""

    api: str
    web: str

    @property
    def host(self) -> str:
        """The host as `gh` knows it."""
        return Address.parse(self.web).host


def places(connection: Connection) -> Places:
    """The services beside a connection's registry, by its address and its options ``api`` and ``web``.

    ConfigError: the address does not say, and there is no option that does.
    """
    options = dict(connection.options)
    api, web = options.get("api", "").rstrip("/"), options.get("web", "").rstrip("/")
    known = _known(Address.parse(connection.address).host)
    if not api and known is None:
        raise ConfigError(
            f"{connection.address} does not say where its API is: name it in the config,"
            ' options = { api = "https://HOST/api/v3" }'
        )
    api = api or (known.api if known else "")
    found = Places(api, web or (known.web if known else _site_of(api)))
    for url in (found.api, found.web):
        if Address.parse(url).scheme not in ("http", "https"):
            raise ConfigError(f"a service's address begins with https://, and this does not: {url[:80]!r}")
    return found


def _known(host: str) -> Places | None:
    if host == "ghcr.io":
        return Places("https://api.github.com", "https://github.com")
    if resident := _RESIDENT.fullmatch(host):
        return Places(f"https://api.{resident[1]}", f"https://{resident[1]}")
    if host.startswith("containers."):
        site = host.removeprefix("containers.")
        return Places(f"https://{site}/api/v3", f"https://{site}")
    return None


def _site_of(api: str) -> str:
    """The site an API belongs to: the same host, without the path."""
    parsed = Address.parse(api)
    return f"{parsed.scheme or 'https'}://{replace(parsed, prefix='').authority}"


class GhcrProvider(GenericProvider):
    """GitHub's container registry."""

    name = "ghcr"
    title = "GitHub container registry"
    hosts = ("ghcr.io",)
    capabilities = (
        ListsNamespaces,
        ListsReferrers,
        ResolvesTags,
        HonoursRanges,
        DatesTags,
        DeletesTags,
        Recovers,
        Counts,
    )

    @property
    def fields(self) -> Sequence[Field]:
        """What the auth method asks for, in GitHub's words."""
        return (
            Field("username", "GitHub user name"),
            Field(
                "password",
                "Classic token",
                secret=True,
                help="scope read:packages; see Settings, Tokens (classic)",
            ),
        )

    def claim(self, address: str) -> Claim | None:
        """As `GenericProvider.claim`; an owner's name behind the host is lower-cased, as it is in image names."""
        claim = super().claim(address)
        if claim is None or Address.parse(address).host in _NOT_OURS:
            return None
        claim = replace(claim, rest=self.spelled(claim.rest))
        if _RESIDENT.fullmatch(Address.parse(claim.address).host):
            return replace(claim, confidence=100, reason=f"{claim.address} is a host of GitHub's")
        return claim

    def recognise(self, address: str, status: int, headers: Mapping[str, str]) -> Claim | None:
        """An Enterprise Server's registry: GitHub's own header, on a host that says where its API is."""
        claim = self.claim(address)
        if claim is None or "x-github-request-id" not in headers or status not in (200, 401):
            return None
        if _known(Address.parse(claim.address).host) is None:
            return None
        return replace(claim, confidence=90, reason="it answers as GitHub does")

    def spelled(self, path: str) -> str:
        """The owner in lower case: the website shows it as it was made, the registry knows no capitals in names."""
        owner, slash, rest = path.partition("/")
        return f"{owner.lower()}{slash}{rest}"

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """One registry. Makes no request. ConfigError where it is not said where the API is."""
        from regfs.auth.service import ServiceFlow
        from regfs.providers.ghcr_api import Api, Token
        from regfs.providers.ghcr_source import GhcrSource
        from regfs.registry.client import Client
        from regfs.registry.service import Service

        base, token = places(connection).api, Token()
        flow = None
        if tools.auth is not None and tools.keychain is not None:
            flow = ServiceFlow(connection, tools.keychain, base, token.headers)
        api = Api(connection.address, Service(connection, base, tools.http, flow), token)
        client = Client(connection, tools.http, tools.auth, read_only=tools.http.read_only)
        return {"": GhcrSource(connection, client, api, tools)}

    def credential_sources(self, connection: Connection) -> Sequence[CredentialSource]:
        """The environment's ``GH_TOKEN`` and ``GITHUB_TOKEN``, then what `gh` is signed in with."""
        from regfs.providers.ghcr_credentials import EnvironmentSource, GhSource

        try:
            host = places(connection).host
        except (ConfigError, ValueError):
            return ()
        username = connection.username or TOKEN_USER
        return (EnvironmentSource(host, username), GhSource(host, username))

    def oauth(self, connection: Connection) -> OAuthServer:
        """GitHub's device and browser sign-ins; the client id is the user's own."""
        web = places(connection).web
        return OAuthServer(
            token_endpoint=f"{web}/login/oauth/access_token",
            device_endpoint=f"{web}/login/device/code",
            authorization_endpoint=f"{web}/login/oauth/authorize",
            scopes=SCOPES,
            username=TOKEN_USER,
            client_help=f"{web}/settings/developers: OAuth Apps, New OAuth App, with Enable Device Flow ticked",
        )
