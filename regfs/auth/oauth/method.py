"""The auth method ``oauth``: a person agrees once, and access tokens are got and renewed from then on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from regfs.connection import Connection
from regfs.errors import CredentialError, NotSignedIn
from regfs.ports import Credential, Exchange, Field, Keychain, OAuthServer, Person

if TYPE_CHECKING:
    import httpx

    from regfs.auth.oauth.grant import Tokens
    from regfs.auth.oauth.messages import ClientAuth, OAuthError
    from regfs.auth.oauth.settings import Settings

_FIELDS: Final = (
    Field("oauth_client_id", "Client id", help="The id of a client application of yours there."),
)


class OAuth:
    """Sign-in by OAuth 2.0: device flow, authorization code with PKCE, client credentials.

    The access token goes as a password where a user name is known for it, else as a Bearer token.
    """

    name = "oauth"
    title = "OAuth (a browser, on any device)"

    @property
    def fields(self) -> Sequence[Field]:
        """The client id; all else is said by options, or in the conversation."""
        return _FIELDS

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        """The flow for a connection, over a refined keychain; None where its address is no HTTP registry's."""
        from regfs.auth.flows import ChallengeFlow

        return ChallengeFlow.for_connection(connection, keychain)

    def credential(self, answers: Mapping[str, str]) -> Credential | None:  # noqa: ARG002  the contract's
        """CredentialError: answers to a form are no sign-in; see `sign_in`."""
        raise CredentialError("a sign-in by OAuth is a conversation: run `regfs login` or `regfs reconnect`")

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:  # noqa: ARG002  the contract's
        """None: an access token ends within hours, and Docker's protocol has no place for a grant."""
        return None

    def refined(self, connection: Connection, keychain: Keychain, exchange: Exchange) -> Keychain:
        """See `regfs.ports.RefinesKeychain.refined`."""
        from regfs.auth.oauth.keychain import GrantKeychain

        return GrantKeychain(connection, keychain, exchange)

    async def sign_in(
        self,
        connection: Connection,
        answers: Mapping[str, str],
        server: OAuthServer | None,
        exchange: Exchange,
        person: Person,
    ) -> Credential:
        """See `regfs.ports.SignsInWithPerson.sign_in`. ``answers``: ``oauth_client_id``, ``client_secret`` and ``username``, each where there is one.

        Endpoints, scopes and the flow are the connection's options, else the ``server``'s. Also what `Exchange` raises.
        """
        from regfs.auth.oauth import settings as settings_module
        from regfs.auth.oauth.messages import ClientAuth, OAuthError
        from regfs.redaction import register_secret

        settings, basic = settings_module.settings_of(connection, answers, server), False
        if settings.server.issuer and _lacks_endpoints(settings):
            from regfs.auth.oauth.discovery import discovered

            found, basic = await discovered(settings.server, exchange)
            settings = replace(settings, server=found)
        register_secret(settings.client_secret)
        client = ClientAuth(settings.client_id, settings.client_secret, basic)
        asked = time.time()
        try:
            tokens, client = await _conversation(settings, client, exchange, person)
        except OAuthError as error:
            raise _refused(error, settings) from None
        return _grant(settings, client, tokens, asked)


def _lacks_endpoints(settings: Settings) -> bool:
    from regfs.auth.oauth.settings import chosen_flow

    try:
        chosen_flow(settings)
    except CredentialError:
        return True
    return False


async def _conversation(
    settings: Settings, client: ClientAuth, exchange: Exchange, person: Person
) -> tuple[Tokens, ClientAuth]:
    from regfs.auth.oauth import browser, device
    from regfs.auth.oauth.asking import tokens_for
    from regfs.auth.oauth.messages import by_client
    from regfs.auth.oauth.settings import FlowKind, chosen_flow

    server = settings.server
    match chosen_flow(settings):
        case FlowKind.DEVICE:
            return await device.sign_in(server, client, exchange, person)
        case FlowKind.BROWSER:
            return await browser.sign_in(server, client, exchange, person)
        case FlowKind.CLIENT:
            return await tokens_for(
                exchange, client, lambda who: by_client(server.token_endpoint, who, server.scopes)
            )


def _grant(settings: Settings, client: ClientAuth, tokens: Tokens, asked: float) -> Credential:
    from regfs.auth.oauth.grant import Grant
    from regfs.auth.oauth.settings import FlowKind, chosen_flow

    grant = Grant(
        settings.server.token_endpoint,
        client.client_id,
        client_secret=client.secret,
        scopes=tuple(settings.server.scopes),
        username=settings.server.username,
        by_client=chosen_flow(settings) is FlowKind.CLIENT,
        basic=client.basic,
    )
    return grant.with_tokens(tokens, asked).kept("sign-in")


_REASONS: Final = {
    "invalid_client": "it does not know this client application, or its secret",
    "unauthorized_client": "this client application may not sign people in in this way",
    "unsupported_grant_type": "it does not sign people in in this way",
    "invalid_scope": "it does not know a scope that was asked for, or gives it to nobody",
    "invalid_grant": "it does not take what it gave a moment ago",
}


def _refused(error: OAuthError, settings: Settings) -> NotSignedIn:
    host = urlsplit(settings.server.token_endpoint).netloc
    reason = _REASONS.get(error.code, "the sign-in is refused")
    return NotSignedIn(f"{host} answers {error.code!r}: {reason}", words=error.words)
