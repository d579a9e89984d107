"""A kind of registry: which addresses are its own, and how a connection becomes Sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from regfs.connection import Connection
from regfs.ports.auth import CredentialSource, Field, Keychain, OAuthServer
from regfs.ports.clock import Clock
from regfs.ports.source import Source

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Claim:
    """A provider's word that an address is its own: normalised, split from the path behind it, and how sure it is.

    ``confidence``: 100 its own host names, 10 anything that might be. ``rest`` is what follows the registry's
    address in a path such as ``localhost:5000/team/app``: without a slash at either end.
    """

    address: str
    rest: str = ""
    confidence: int = 10
    reason: str = ""
    """Why the provider takes it, for people: what `regfs login` says (``its own host name``)."""


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """How requests are sent, whoever sends them. Times in seconds.

    ``read_only``: nothing but GET and HEAD goes to the registry's API, whoever asks.
    """

    user_agent: str
    call_deadline: float = 30.0
    stall_deadline: float = 30.0
    max_requests: int = 16
    retries: int = 4
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Tools:
    """What the daemon gives to a provider so that it can build a Source for one connection."""

    auth: httpx.Auth | None
    http: HttpPolicy
    clock: Clock
    state_dir: Path
    """A folder of this connection's own, for journals; it may not exist yet."""
    keychain: Keychain | None = None
    """Where this connection's credentials come from, for a service that is asked beside the registry."""


class Provider(Protocol):
    """A kind of registry. Found by the entry-point group ``regfs.providers``; made without arguments."""

    name: str
    """As in ``--provider NAME``; one lower-case word."""
    title: str
    """As a person would call it."""
    default_auth: str
    """The auth method that it uses where the user names none."""
    many: bool
    """Whether more than one connection may exist."""

    @property
    def fields(self) -> Sequence[Field]:
        """What its sign-in needs beyond what the auth method asks for."""
        ...

    def claim(self, address: str) -> Claim | None:
        """Whether ``address`` (which may have a path behind it) can be of this kind. ValueError: malformed, with the reason."""
        ...

    async def registries(self, connection: Connection, tools: Tools) -> Mapping[str, Source]:
        """The registries that the connection yields, by folder name; a single one bears the name ``""``.

        Makes no request where the answer is known without one.
        """
        ...


@runtime_checkable
class BringsCredentials(Protocol):
    """What a provider may be too: it knows places for credentials that nobody else has (another program's sign-in)."""

    def credential_sources(self, connection: Connection) -> Sequence[CredentialSource]:
        """Places to look in for this connection after all others had nothing, in order."""
        ...


@runtime_checkable
class OffersOAuth(Protocol):
    """What a provider may be too: its service signs people in by OAuth."""

    def oauth(self, connection: Connection) -> OAuthServer:
        """Where that service's OAuth endpoints are for this connection, and what to ask for. Asks nothing."""
        ...


@runtime_checkable
class RecognisesReplies(Protocol):
    """What a provider may be too: it knows its kind by how a registry answers, whatever its host is called."""

    def recognise(self, address: str, status: int, headers: Mapping[str, str]) -> Claim | None:
        """What an unsigned ``GET /v2/`` at ``address`` says about it (header names in lower case); None: nothing."""
        ...


@runtime_checkable
class SpellsPaths(Protocol):
    """What a provider may be too: people write names of its registries otherwise than the registries do."""

    def spelled(self, path: str) -> str:
        """The path behind a registry's address, as it was typed, in the registry's own spelling."""
        ...


@runtime_checkable
class DeclaresCapabilities(Protocol):
    """What a provider may be too: it says without a connection what its Sources can do; `regfs plugins` shows it."""

    @property
    def capabilities(self) -> Sequence[type]:
        """Every capability (`DeletesTags` …) that a Source of its hands out on a mount that may write."""
        ...
