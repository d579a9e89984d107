"""The device flow (RFC 8628): a person opens a page anywhere and types a code; meanwhile we ask now and then."""

from __future__ import annotations

from typing import Final

import trio

from regfs.auth.oauth.asking import tokens_for
from regfs.auth.oauth.grant import Tokens
from regfs.auth.oauth.messages import (
    MAX_INTERVAL,
    ClientAuth,
    DeviceCode,
    OAuthError,
    by_device,
    device_authorization,
    device_reply,
    is_passing,
)
from regfs.errors import NotSignedIn, RegfsError
from regfs.ports import Exchange, OAuthServer, Person
from regfs.redaction import register_secret

SLOWER: Final = 5.0
"""RFC 8628, 3.5: how much the interval grows by a ``slow_down``, in seconds."""


async def sign_in(
    server: OAuthServer, client: ClientAuth, exchange: Exchange, person: Person
) -> tuple[Tokens, ClientAuth]:
    """Carry it out. Raises NotSignedIn where the person refuses or the code runs out, OAuthError for any other refusal."""
    request = device_authorization(server.device_endpoint, client, server.scopes)
    device = device_reply(await exchange(request), server.device_endpoint)
    register_secret(device.code)
    person.show_link(device.complete or device.url, device.user_code)
    if device.complete:
        person.tell(f"Or open {device.url} and type the code there.")
    person.tell("Waiting until you have agreed there …")
    with trio.move_on_after(device.lifetime):
        return await _polled(server, client, device, exchange)
    raise _ran_out()


async def _polled(
    server: OAuthServer, client: ClientAuth, device: DeviceCode, exchange: Exchange
) -> tuple[Tokens, ClientAuth]:
    interval = device.interval
    while True:
        await trio.sleep(interval)
        try:
            return await tokens_for(
                exchange, client, lambda who: by_device(server.token_endpoint, who, device.code)
            )
        except OAuthError as error:
            interval = _next_interval(interval, error)
        except RegfsError as error:
            if not is_passing(error):
                raise
            interval = min(
                max(interval, 1.0) * 2, MAX_INTERVAL
            )  # RFC 8628, 3.5: back off where nothing answers


def _next_interval(interval: float, error: OAuthError) -> float:
    """How long to wait from now on. Raises where waiting is over."""
    match error.code:
        case "authorization_pending":
            return interval
        case "slow_down":
            return min(max(interval + SLOWER, error.interval or 0.0), MAX_INTERVAL)
        case "access_denied":
            raise NotSignedIn("the sign-in was refused there", words=error.words)
        case "expired_token":
            raise _ran_out()
    raise error


def _ran_out() -> NotSignedIn:
    return NotSignedIn("the code was not used in time; run the same command again for a new one")
