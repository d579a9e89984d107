"""Signing in: credentials, where they are kept, and the methods that make use of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from regfs.connection import Connection

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a sign-in asks for. A ``secret`` is read without echo and never stored in a config."""

    name: str
    label: str
    secret: bool = False
    required: bool = True
    help: str = ""


class CredentialKind(Enum):
    """What a secret is."""

    PASSWORD = "password"
    IDENTITY_TOKEN = "identity token"
    REGISTRY_TOKEN = "registry token"
    OAUTH_GRANT = "OAuth sign-in"
    """A grant as the ``oauth`` method keeps it: a refresh token and where it may be used. Never sent as it is."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and a secret. ``origin`` says where it came from, for people. The secret is in no repr.

    ``expires`` is when it stops being good, in seconds since 1970; None: that is not known.
    """

    username: str
    secret: str = field(repr=False)
    kind: CredentialKind = CredentialKind.PASSWORD
    origin: str = ""
    expires: float | None = None


class CredentialSource(Protocol):
    """One place where credentials are kept."""

    @property
    def name(self) -> str:
        """How people call it: ``keyring``, ``~/.docker/config.json``."""
        ...

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection; None: has none. CredentialError: could not say."""
        ...


@runtime_checkable
class KnowsParts(Protocol):
    """What a credential source or a keychain may be too: it has credentials for parts of a registry.

    Its ``get`` then heeds `Connection.part`: the credential of the longest key that leads there.
    """

    async def parts(self, connection: Connection) -> Sequence[str]:
        """The namespaces and repositories of the registry that have a credential of their own: ``team``, ``team/app``.

        Runs no helper program. CredentialError: could not say.
        """
        ...


@runtime_checkable
class KeepsCredentials(Protocol):
    """A credential source that one can write to."""

    async def store(self, connection: Connection, credential: Credential) -> None:
        """Keep it, in place of an older one. Raises CredentialError."""
        ...

    async def erase(self, connection: Connection) -> bool:
        """Forget it; False where there was none. Raises CredentialError."""
        ...


class Keychain(Protocol):
    """Where credentials come from, in order; the first source that has one wins."""

    async def get(self, connection: Connection) -> Credential | None:
        """The first credential found. CredentialError only where none was found and a source failed."""
        ...


@runtime_checkable
class RenewsCredentials(Protocol):
    """A keychain that can get another credential in the place of one that was refused."""

    async def renewed(self, connection: Connection, refused: Credential) -> Credential | None:
        """Another credential than ``refused``, which may cost a request; None: there is none.

        However many wait, one renewal is made. Raises NotSignedIn where only a person can help, and CredentialError.
        """
        ...


class Exchange(Protocol):
    """Sends what a sign-in itself has to ask, under the connection's own rules for TLS, proxies, hosts and deadlines."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Send and read it whole; no redirect is followed. Raises what a Source raises where nothing answers."""
        ...


@dataclass(frozen=True, slots=True)
class OAuthServer:
    """An authorization server: RFC 6749, 8628 (device), 7636 (PKCE); URLs. ``issuer``: the rest is discovered (RFC 8414).

    ``username``: with which user name a registry takes an access token as a password; empty: as a Bearer token.
    """

    token_endpoint: str = ""
    device_endpoint: str = ""
    authorization_endpoint: str = ""
    issuer: str = ""
    scopes: Sequence[str] = ()
    username: str = ""
    client_help: str = ""
    """How a person gets a client id there, for people."""


class Person(Protocol):
    """Whoever sits before the terminal during a sign-in."""

    def tell(self, text: str) -> None:
        """Show a line."""
        ...

    def show_link(self, url: str, code: str = "") -> None:
        """Show a URL to open (and the code to type there) in every way the terminal can."""
        ...


@runtime_checkable
class RefinesKeychain(Protocol):
    """What an auth method may be too: what is kept is not what is sent (a grant, for which it gets access tokens)."""

    def refined(self, connection: Connection, keychain: Keychain, exchange: Exchange) -> Keychain:
        """The keychain that flows are to ask instead of ``keychain``. Asks nothing yet."""
        ...


@runtime_checkable
class SignsInWithPerson(Protocol):
    """What an auth method may be too: its sign-in is a conversation with a person and a service, not a form."""

    async def sign_in(
        self,
        connection: Connection,
        answers: Mapping[str, str],
        server: OAuthServer | None,
        exchange: Exchange,
        person: Person,
    ) -> Credential:
        """Carry it out; ``server`` is what the provider knows. Raises NotSignedIn, CredentialError."""
        ...


class AuthMethod(Protocol):
    """A way of signing in. Found by the entry-point group ``regfs.auth``; made without arguments."""

    name: str
    title: str

    @property
    def fields(self) -> Sequence[Field]:
        """What it asks a person for; none: nothing."""
        ...

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        """The flow that signs the connection's requests: yields requests, receives responses. None: sends nothing."""
        ...

    def credential(self, answers: Mapping[str, str]) -> Credential | None:
        """The credential to keep, from what a person answered; None: there is nothing to keep. Raises CredentialError."""
        ...

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:
        """User name and secret as Docker's credential protocol spells them (``<token>`` for an identity token), or None."""
        ...
