"""What an OAuth sign-in is to use: what the person said, else what the provider knows of its service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import OAuthServer

CLIENT_ID: Final = "oauth_client_id"
ISSUER: Final = "oauth_issuer"
TOKEN_ENDPOINT: Final = "oauth_token_endpoint"
DEVICE_ENDPOINT: Final = "oauth_device_endpoint"
AUTHORIZATION_ENDPOINT: Final = "oauth_authorization_endpoint"
SCOPES: Final = "oauth_scopes"
FLOW: Final = "oauth_flow"
"""Keys of a connection's ``options``. The scopes are joined by blanks."""

CLIENT_SECRET: Final = "client_secret"
"""The key among a sign-in's answers: a secret is never among the options."""


class FlowKind(Enum):
    """How a sign-in goes: RFC 8628; RFC 6749, 4.1 with RFC 7636; RFC 6749, 4.4."""

    DEVICE = "device"
    BROWSER = "browser"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a sign-in needs to know. ``flow`` None: what the server can do decides."""

    client_id: str
    server: OAuthServer
    client_secret: str = field(default="", repr=False)
    flow: FlowKind | None = None


def settings_of(connection: Connection, answers: Mapping[str, str], server: OAuthServer | None) -> Settings:
    """Read what was answered, over the connection's options, over what the provider knows. CredentialError: not enough."""
    options = dict(connection.options)
    known = server or OAuthServer()
    client_id = answers.get(CLIENT_ID) or options.get(CLIENT_ID, "")
    if not client_id:
        hint = f" {known.client_help}" if known.client_help else ""
        raise CredentialError(
            f"a sign-in by OAuth needs the id of a client application: --client-id ID.{hint}"
        )
    return Settings(
        client_id,
        server_of(connection, known, answers.get("username", "")),
        answers.get(CLIENT_SECRET, ""),
        flow_of(options.get(FLOW, "")),
    )


def server_of(connection: Connection, known: OAuthServer, username: str = "") -> OAuthServer:
    """The authorization server: where the connection names an issuer of its own, nothing of the provider's is left."""
    options = dict(connection.options)
    if options.get(ISSUER, known.issuer) != known.issuer:
        known = replace(known, token_endpoint="", device_endpoint="", authorization_endpoint="")
    scopes = options.get(SCOPES, "").split()
    return replace(
        known,
        issuer=options.get(ISSUER, known.issuer),
        token_endpoint=options.get(TOKEN_ENDPOINT, known.token_endpoint),
        device_endpoint=options.get(DEVICE_ENDPOINT, known.device_endpoint),
        authorization_endpoint=options.get(AUTHORIZATION_ENDPOINT, known.authorization_endpoint),
        scopes=scopes or tuple(known.scopes),
        username=username or connection.username or known.username,
    )


def flow_of(text: str) -> FlowKind | None:
    """Read a flow's name. CredentialError: there is none so called."""
    try:
        return FlowKind(text) if text else None
    except ValueError:
        kinds = ", ".join(kind.value for kind in FlowKind)
        raise CredentialError(f"there is no OAuth flow {text[:40]!r}; there are {kinds}") from None


def chosen_flow(settings: Settings) -> FlowKind:
    """The flow to take; where none is asked for, the first that the server has. CredentialError: it lacks an endpoint."""
    server = settings.server
    has = {
        FlowKind.DEVICE: bool(server.device_endpoint and server.token_endpoint),
        FlowKind.BROWSER: bool(server.authorization_endpoint and server.token_endpoint),
        FlowKind.CLIENT: bool(settings.client_secret and server.token_endpoint),
    }
    wanted = [settings.flow] if settings.flow else list(FlowKind)
    for kind in wanted:
        if has[kind]:
            return kind
    raise CredentialError(_lacking(settings.flow, server))


def _lacking(flow: FlowKind | None, server: OAuthServer) -> str:
    if not server.token_endpoint:
        return "a sign-in by OAuth needs the token endpoint: --token-endpoint URL, or --issuer URL to have it looked up"
    if flow is FlowKind.CLIENT:
        return "the flow 'client' needs the client's secret: pipe it to --client-secret-stdin"
    if flow is FlowKind.DEVICE:
        return "the flow 'device' needs the device authorization endpoint: --device-endpoint URL"
    if flow is FlowKind.BROWSER:
        return "the flow 'browser' needs the authorization endpoint: --authorization-endpoint URL"
    return "a sign-in by OAuth needs one more endpoint: --device-endpoint URL or --authorization-endpoint URL"
