"""The ways of signing in that regfs brings: none, Basic unasked, and whatever the registry's challenge asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from regfs.auth.validity import TOKEN_USER, checked
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind, Field, Keychain

if TYPE_CHECKING:
    import httpx

_FIELDS: Final = (
    Field("username", "User name"),
    Field("password", "Password or token", secret=True),
)


class Anonymous:
    """No sign-in: nothing is sent, not even where a registry asks."""

    name = "anonymous"
    title = "Anonymous"

    @property
    def fields(self) -> Sequence[Field]:
        """Nothing to ask."""
        return ()

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:  # noqa: ARG002  the contract's
        """None: nothing signs the requests."""
        return None

    def credential(self, answers: Mapping[str, str]) -> Credential | None:  # noqa: ARG002  the contract's
        """None: nothing to keep."""
        return None

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:  # noqa: ARG002  the contract's
        """None: nothing to hand over."""
        return None


class Basic:
    """User name and password with every request, without waiting to be asked."""

    name = "basic"
    title = "User name and password"

    @property
    def fields(self) -> Sequence[Field]:
        """User name and password."""
        return _FIELDS

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        """The flow for a connection; None where its address is no HTTP registry's."""
        from regfs.auth.flows import BasicFlow

        return BasicFlow.for_connection(connection, keychain)

    def credential(self, answers: Mapping[str, str]) -> Credential | None:
        """A password. CredentialError where user name or password is missing, or cannot be sent."""
        username, password = _answered(answers)
        return checked(Credential(username, password, origin="sign-in"))

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:
        """User name and password; None for tokens."""
        if credential.kind is not CredentialKind.PASSWORD:
            return None
        return credential.username, credential.secret


class Challenge:
    """Whatever the registry asks for: Basic, or a token from the endpoint that it names."""

    name = "challenge"
    title = "As the registry asks (password or identity token)"

    @property
    def fields(self) -> Sequence[Field]:
        """User name and password; the user name ``<token>`` says that the password is an identity token."""
        return _FIELDS

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        """The flow for a connection; None where its address is no HTTP registry's."""
        from regfs.auth.flows import ChallengeFlow

        return ChallengeFlow.for_connection(connection, keychain)

    def credential(self, answers: Mapping[str, str]) -> Credential | None:
        """A password or an identity token. CredentialError where one is missing, or cannot be sent."""
        username, password = _answered(answers)
        if username == TOKEN_USER:
            return checked(Credential("", password, CredentialKind.IDENTITY_TOKEN, origin="sign-in"))
        return checked(Credential(username, password, origin="sign-in"))

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:
        """User name and secret as Docker's helpers store them; None for registry tokens, which they cannot hold."""
        if credential.kind in (CredentialKind.REGISTRY_TOKEN, CredentialKind.OAUTH_GRANT):
            return None
        if credential.kind is CredentialKind.IDENTITY_TOKEN:
            return TOKEN_USER, credential.secret
        return credential.username, credential.secret


def _answered(answers: Mapping[str, str]) -> tuple[str, str]:
    for field in _FIELDS:
        if not answers.get(field.name):
            raise CredentialError(f"a sign-in needs a {field.label.lower()}, and it is empty")
    return answers["username"], answers["password"]
