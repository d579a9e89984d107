"""Opening Docker Hub: the clients of the registry and of the Hub API, and how each is signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from regfs.auth.flows import ChallengeFlow
from regfs.auth.session import SessionFlow
from regfs.connection import Connection
from regfs.errors import ConfigError
from regfs.ports import Credential, Keychain, Source, Tools
from regfs.providers.dockerhub import OPTIONS
from regfs.providers.dockerhub_api import FORM, SIGN_IN, HubApi
from regfs.providers.dockerhub_pulls import PullClient
from regfs.providers.dockerhub_source import HubSource
from regfs.registry.journal import Journal
from regfs.registry.service import Service, beside


class NoCredentials:
    """A keychain that has none: who signs in as nobody still gets tokens of nobody's."""

    async def get(self, connection: Connection) -> Credential | None:  # noqa: ARG002  the contract's
        """None."""
        return None


def opened(connection: Connection, tools: Tools, options: Mapping[str, str]) -> Source:
    """The Source for a connection. ConfigError: an option is no URL."""
    keychain: Keychain = NoCredentials()
    if connection.auth != "anonymous" and tools.keychain is not None:
        keychain = tools.keychain
    registry = beside(connection, options["registry"])
    if options["registry"] != OPTIONS["registry"]:
        # What the user said of this connection's TLS is about the host that the user named.
        registry = replace(connection, address=options["registry"])
    auth = tools.auth
    if registry.address != OPTIONS["registry"] or connection.auth == "anonymous":
        # The host that stands for Docker Hub gets Docker Hub's credential.
        auth = ChallengeFlow(connection, keychain, at=registry)
    read_only = tools.http.read_only
    client = PullClient(registry, tools.http, auth, read_only=read_only)
    try:
        flow = SessionFlow(connection, keychain, options["api"], FORM)
    except ValueError as error:
        raise ConfigError(f"not the address of an API: {error}") from None
    service = Service(registry, options["api"], tools.http, flow, sign_in=SIGN_IN)
    return HubSource(connection, client, Journal(tools.state_dir), HubApi(service, flow))
