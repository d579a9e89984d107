"""GitLab's kinds of tokens: how each is spelled in a request to the API, and what each opens.

Sources: GitLab's documentation, "REST API authentication", "Authenticate with the container registry", "GitLab CI/CD
job token", "OAuth 2.0 tokens and GitLab registries".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from regfs.connection import Connection
from regfs.errors import Forbidden, NotSignedIn
from regfs.ports import Credential, CredentialKind, Keychain
from regfs.reference import Address

OAUTH_USER: Final = "oauth2"
JOB_USER: Final = "gitlab-ci-token"


class Kind(Enum):
    """What a credential is to GitLab. Personal, project and group access tokens are one kind: they differ in whose they are."""

    NONE = "nobody signed in"
    ACCESS = "access token"
    OAUTH = "OAuth token"
    JOB = "job token"
    DEPLOY = "deploy token"
    FOREIGN = "token of the registry alone"


USE_INSTEAD: Final = "a personal, project or group access token with the scopes read_api and read_registry (and api, to delete)"
_DEPLOY: Final = (
    "a deploy token opens the registry alone, and GitLab's API does not take it: walk by full names, or sign in with "
    f"{USE_INSTEAD}"
)
_FOREIGN: Final = f"GitLab's API takes no credential of this kind: sign in with {USE_INSTEAD}"


def kind_of(credential: Credential | None) -> Kind:
    """What a credential is, by its user name and by the prefixes that GitLab gives to tokens; else an access token.

    A password is taken for an access token: nothing but GitLab's answer tells them apart.
    """
    if credential is None:
        return Kind.NONE
    if credential.kind is not CredentialKind.PASSWORD:
        return Kind.FOREIGN
    if credential.username == OAUTH_USER:
        return Kind.OAUTH
    if credential.username == JOB_USER or credential.secret.startswith("glcbt-"):
        return Kind.JOB
    if credential.username.startswith("gitlab+deploy-token") or credential.secret.startswith("gldt-"):
        return Kind.DEPLOY
    return Kind.ACCESS


def headers_for(credential: Credential) -> Mapping[str, str]:
    """How a credential is spelled in a request to the API. Forbidden, before anything is sent, where it is of no use there."""
    kind = kind_of(credential)
    if kind is Kind.DEPLOY:
        raise Forbidden(_DEPLOY)
    if kind is Kind.FOREIGN:
        raise Forbidden(_FOREIGN)
    if not credential.secret.isascii() or not credential.secret.isprintable() or " " in credential.secret:
        raise NotSignedIn(
            f"a secret with letters outside ASCII is no token of GitLab's: sign in with {USE_INSTEAD}"
        )
    if kind is Kind.OAUTH:
        return {"Authorization": f"Bearer {credential.secret}"}
    return {"JOB-TOKEN" if kind is Kind.JOB else "PRIVATE-TOKEN": credential.secret}


class Signer:
    """Spells credentials for the API, and knows of which kind the connection's is."""

    def __init__(self, connection: Connection, keychain: Keychain | None) -> None:
        self._connection = connection
        self._keychain = keychain
        self._seen: Credential | None = None
        self._asked = False

    def headers(self, credential: Credential) -> Mapping[str, str]:
        """As `headers_for`; remembers what it was given."""
        self._seen, self._asked = credential, True
        return headers_for(credential)

    async def kind(self) -> Kind:
        """Of which kind the credential is. Asks the keychain where no request was signed yet. Raises CredentialError."""
        if not self._asked and self._keychain is not None:
            self._seen, self._asked = await self._keychain.get(self._connection), True
        return kind_of(self._seen)

    @property
    def known(self) -> Kind | None:
        """The kind, if it is known by now."""
        return kind_of(self._seen) if self._asked else None

    @property
    def who(self) -> str:
        """The credential for people: ``the access token of alice (from the keyring)``."""
        kind, seen = kind_of(self._seen), self._seen
        if seen is None:
            return kind.value
        owner = f" of {seen.username}" if seen.username and kind is Kind.ACCESS else ""
        origin = f" (from {seen.origin})" if seen.origin else ""
        return f"the {kind.value}{owner}{origin}"


class JobToken:
    """The token of the CI job that regfs runs in, for the GitLab that runs the job and for no other."""

    name = "CI_JOB_TOKEN"

    def __init__(
        self, instance: Callable[[Connection], str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._instance = instance
        self._environment = os.environ if environment is None else environment

    async def get(self, connection: Connection) -> Credential | None:
        """The token where ``CI_REGISTRY`` or ``CI_SERVER_URL`` is what the connection is for; else None."""
        token = self._environment.get("CI_JOB_TOKEN", "")
        if not token or not self._is_for(connection):
            return None
        return Credential(JOB_USER, token, origin="CI_JOB_TOKEN")

    def _is_for(self, connection: Connection) -> bool:
        registry = _place(self._environment.get("CI_REGISTRY", ""))
        if registry is not None:
            return registry == _place(connection.address)
        server = _place(self._environment.get("CI_SERVER_URL", ""))
        return server is not None and server == _place(self._instance(connection))


def job_project() -> str:
    """The project of the CI job that regfs runs in, as the registry spells it; empty outside of one."""
    return os.environ.get("CI_PROJECT_PATH", "").lower()


def _place(text: str) -> tuple[str, int | None, str] | None:
    """Host, port and path, however the URL is spelled; None for what is none."""
    try:
        address = Address.parse(text)
    except ValueError:
        return None
    port = address.port
    if address.scheme:
        port = port or {"https": 443, "http": 80}[address.scheme]
    return address.host.rstrip("."), port or 443, address.prefix
