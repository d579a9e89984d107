"""Asking a token endpoint: by the client's authentication that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import httpx

from regfs.auth.oauth.grant import Tokens
from regfs.auth.oauth.messages import ClientAuth, OAuthError, token_reply
from regfs.ports import Exchange

Ask = Callable[[ClientAuth], httpx.Request]


async def tokens_for(exchange: Exchange, client: ClientAuth, ask: Ask) -> tuple[Tokens, ClientAuth]:
    """The tokens, and the client as it was let in: a secret that is refused in one form is shown in the other, once.

    RFC 6749, 2.3.1 knows both forms and servers take the one, the other or both. Raises OAuthError, and what
    `token_reply` and the exchange raise.
    """
    try:
        return token_reply(await exchange(ask(client))), client
    except OAuthError as error:
        if error.code != "invalid_client" or not client.secret:
            raise
    other = replace(client, basic=not client.basic)
    return token_reply(await exchange(ask(other))), other
