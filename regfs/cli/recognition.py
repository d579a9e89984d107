"""Which provider an address belongs to, and why: by its host, or by how the registry answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regfs.connection import Connection
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.ports import Claim

CERTAIN = 100
"""The confidence of a provider in its own host names: nothing need be asked."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """A provider, the whole address as it spells it, and why it was taken, for people."""

    provider: str
    address: str
    reason: str


def recognise(text: str, provider: str | None, fields: dict[str, object]) -> Recognised:
    """The provider for an address as a person writes it; ``fields`` are those of the connection, for TLS.

    One that nobody claims for certain is asked once, unsigned, what it is. ConfigError: nobody takes the address.
    """
    from regfs import plugins
    from regfs.cli.session import claimed

    name, address, rest = claimed(text, provider)
    found = Recognised(name, _whole(address, rest), "as you said")
    if provider is not None:
        return found
    _, claim = plugins.claims(text)
    found = replace(found, reason=_reason(claim))
    if claim.confidence >= CERTAIN:
        return found
    return _by_its_answer(found, claim, fields) or found


def sentence(found: Recognised) -> str:
    """What `regfs login` says about it."""
    from regfs import plugins

    title = plugins.provider(found.provider).title
    return f"{found.address} is taken for {title} (--provider {found.provider}): {found.reason}"


def _by_its_answer(found: Recognised, claim: Claim, fields: dict[str, object]) -> Recognised | None:
    """What providers make of the registry's answer; None where it says nothing, or does not come."""
    import trio

    from regfs import plugins
    from regfs.reference import Address

    if not plugins.recognisers():
        return None
    try:
        Address.parse(found.address)
    except ValueError:
        return None
    connection = Connection("login", found.address, **{k: v for k, v in fields.items() if k in _OF_TLS})  # type: ignore[arg-type]
    try:
        status, headers = trio.run(_answer, connection)
    except RegfsError:
        return None  # the check of the sign-in says it, better
    best = plugins.recognised(found.address, status, headers)
    if best is None or best[1].confidence <= claim.confidence:
        return None
    name, taken = best
    return Recognised(name, _whole(taken.address, taken.rest), _reason(taken))


_OF_TLS = frozenset({"insecure", "ca", "client_cert", "client_key"})


async def _answer(connection: Connection) -> tuple[int, dict[str, str]]:
    from regfs.cli.sources import CHECK_POLICY
    from regfs.registry.client import Client

    client = Client(connection, replace(CHECK_POLICY, retries=0), None, read_only=True)
    try:
        reply = await client.request("GET", "", expect=range(200, 600), what="what kind of registry it is")
        return reply.status, {name.lower(): value for name, value in reply.headers.items()}
    finally:
        await client.aclose()


def _reason(claim: Claim) -> str:
    if claim.reason:
        return claim.reason
    return "its own host name" if claim.confidence >= CERTAIN else "no other provider knows it as its own"


def _whole(address: str, rest: str) -> str:
    return f"{address}/{rest}" if rest else address
