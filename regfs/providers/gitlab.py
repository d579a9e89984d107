"""GitLab's container registry: gitlab.com and self-managed installations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from regfs.ports import (
    Claim,
    Counts,
    CredentialSource,
    DeletesTags,
    Field,
    HonoursRanges,
    ListsNamespaces,
    ListsReferrers,
    OAuthServer,
    ResolvesTags,
)
from regfs.providers.generic import GenericProvider
from regfs.providers.gitlab_address import REGISTRY_OF_GITLAB_COM, guessed, instance_of
from regfs.providers.gitlab_tokens import OAUTH_USER, JobToken

if TYPE_CHECKING:
    from regfs.connection import Connection
    from regfs.ports import Source, Tools
    from regfs.registry.client import Client

_TOKEN_HELP: Final = (
    "A personal, project or group access token with the scopes read_api and read_registry, and api to delete tags. "
    "A deploy token (read_registry) reads, and lists nothing."
)
_CLIENT_HELP: Final = (
    "Register an application of your own under Preferences > Applications of your GitLab (not confidential, "
    "device authorization, scope api or read_api); its Application ID is the client id."
)


class GitLabProvider(GenericProvider):
    """GitLab's registry, with the groups, projects and tag deletion of GitLab's own API.

    Options: ``api`` is the GitLab's URL where the registry does not lead there; ``oauth_scopes`` what an OAuth sign-in
    asks for (``read_api`` lists, ``api`` deletes too).
    """

    name = "gitlab"
    title = "GitLab"
    hosts = (REGISTRY_OF_GITLAB_COM, "gitlab.com")
    capabilities = (ListsNamespaces, ListsReferrers, ResolvesTags, HonoursRanges, DeletesTags, Counts)

    @property
    def fields(self) -> Sequence[Field]:
        """What the password is here."""
        return (Field("password", "Access token", secret=True, help=_TOKEN_HELP),)

    def claim(self, address: str) -> Claim | None:
        """As `GenericProvider.claim`; gitlab.com, where people look at the images, stands for its registry."""
        claim = super().claim(address)
        if claim is not None and claim.address == "gitlab.com":
            return Claim(REGISTRY_OF_GITLAB_COM, claim.rest, claim.confidence, claim.reason)
        return claim

    def recognise(self, address: str, status: int, headers: Mapping[str, str]) -> Claim | None:
        """A 401 that sends one to ``/jwt/auth`` for a token to ``container_registry`` is GitLab's."""
        if status != 401:
            return None
        instance = instance_of([headers.get("www-authenticate", "")])
        claim = self.claim(address) if instance else None
        if claim is None:
            return None
        return Claim(claim.address, claim.rest, 90, f"it signs in at the GitLab at {instance}")

    def oauth(self, connection: Connection) -> OAuthServer:
        """GitLab's own OAuth endpoints (gitlabhq doc/api/oauth2.md). ConfigError: the option ``api`` is no URL."""
        base = guessed(connection)
        scopes = dict(connection.options).get("oauth_scopes", "api").split()
        return OAuthServer(
            token_endpoint=f"{base}/oauth/token",
            device_endpoint=f"{base}/oauth/authorize_device",
            authorization_endpoint=f"{base}/oauth/authorize",
            scopes=tuple(scopes),
            username=OAUTH_USER,
            client_help=_CLIENT_HELP,
        )

    def credential_sources(self, connection: Connection) -> Sequence[CredentialSource]:  # noqa: ARG002  asked by `get`
        """The token of the CI job that regfs runs in."""
        return (JobToken(guessed),)

    def source(self, connection: Connection, client: Client, tools: Tools) -> Source:
        """The Source for a connection. ConfigError: the option ``api`` is no URL."""
        from regfs.providers.gitlab_instance import Instance
        from regfs.providers.gitlab_names import Names
        from regfs.providers.gitlab_source import GitLabSource
        from regfs.providers.gitlab_tokens import Signer
        from regfs.registry.journal import Journal

        signer = Signer(connection, None if connection.auth == "anonymous" else tools.keychain)
        instance = Instance(connection, tools, signer)
        names = Names(connection.address, instance, signer)
        return GitLabSource(connection.address, client, Journal(tools.state_dir), instance, signer, names)
