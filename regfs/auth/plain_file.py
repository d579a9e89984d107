"""Files of one credential: lines as mount.cifs reads them, or TOML, or the shape of Docker's ``config.json``.

A file that begins with ``{`` is JSON; one whose name ends in ``.toml`` is TOML with the same keys as the lines; any
other is lines ``key=value``: blanks round the value are dropped, quotes are part of it, ``#`` begins a comment line.
The keys: ``username`` (or ``user``), ``password`` (``pass``, ``key``), ``identitytoken``, ``registrytoken``, and
``registry``, which says whose credential it is. A password may stand alone where an auth method of a plugin's is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from regfs.auth.docker_file import DockerFile
from regfs.auth.places import canonical, keys_for, parts_among
from regfs.auth.validity import TOKEN_USER
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

_KEYS: Final = {
    "username": "username",
    "user": "username",
    "password": "password",
    "pass": "password",
    "key": "password",
    "identitytoken": "identitytoken",
    "registrytoken": "registrytoken",
    "registry": "registry",
}
_WITH_USER_NAME: Final = frozenset({"basic", "challenge", "oauth"})
"""The auth methods of ours that send a user name with a password. What a plugin's asks for is seen to where it is known."""

_SECRETS: Final = {
    "password": CredentialKind.PASSWORD,
    "identitytoken": CredentialKind.IDENTITY_TOKEN,
    "registrytoken": CredentialKind.REGISTRY_TOKEN,
}


@dataclass(frozen=True, slots=True)
class PlainFile:
    """One credential, and the registry it is for; "" where the file does not say."""

    credential: Credential
    registry: str

    def serves(self, connection: Connection, *, single: bool) -> bool:
        """Whether the credential is this connection's. CredentialError where it may be anybody's."""
        if self.registry:
            return canonical(self.registry) in keys_for(connection)
        if single:
            return True
        raise CredentialError(
            f"{self.credential.origin} does not say which registry it is for, and there are several:"
            " add a line registry=HOST"
        )


async def credential_in(
    content: bytes, origin: str, connection: Connection, *, single: bool, toml: bool = False
) -> Credential | None:
    """The connection's credential in a file of any of the shapes. CredentialError names the line, never its value."""
    if content.lstrip().startswith(b"{"):
        return await DockerFile.parse(content, origin).get(connection)
    file = _read(content, origin, toml=toml)
    if not file.serves(connection, single=single):
        return None
    credential = file.credential
    alone = credential.kind is CredentialKind.PASSWORD and not credential.username
    if alone and connection.auth in _WITH_USER_NAME:
        raise CredentialError(f"{origin} has a password and no username")
    return credential


def parts_in(content: bytes, origin: str, connection: Connection, *, toml: bool = False) -> list[str]:
    """The parts of the connection's registry that a file of any of the shapes is for. CredentialError as `credential_in`."""
    if content.lstrip().startswith(b"{"):
        return DockerFile.parse(content, origin).parts(connection)
    return parts_among([_read(content, origin, toml=toml).registry], connection)


def _read(content: bytes, origin: str, *, toml: bool) -> PlainFile:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CredentialError(f"{origin} is not UTF-8") from None
    return _plain(_toml(text, origin) if toml else _lines(text, origin), origin)


def _lines(text: str, origin: str) -> Mapping[str, str]:
    values: dict[str, str] = {}
    # Only line feeds end a line: a password may hold what Unicode also calls line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        known = _KEYS.get(key.strip().lower()) if equals else None
        if known is None:
            raise CredentialError(f"{origin}, line {number}: {_wanted(_KEYS)}")
        if known in values:
            raise CredentialError(f"{origin}, line {number}: {known} is there twice")
        values[known] = value.strip()
    return values


def _toml(text: str, origin: str) -> Mapping[str, str]:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = str(error).rpartition("(")[2].rstrip(")")
        raise CredentialError(f"{origin} is no TOML ({place})") from None
    values: dict[str, str] = {}
    for key, value in read.items():
        if key not in _KEYS or not isinstance(value, str):
            raise CredentialError(f"{origin}: {_wanted(_KEYS)}, each with a text as its value")
        values[_KEYS[key]] = value
    return values


def _plain(values: Mapping[str, str], origin: str) -> PlainFile:
    given = [key for key in _SECRETS if values.get(key)]
    if len(given) != 1:
        raise CredentialError(f"{origin} must have one of {', '.join(_SECRETS)}, and has {len(given)}")
    username, kind = values.get("username", ""), _SECRETS[given[0]]
    if kind is CredentialKind.PASSWORD and username == TOKEN_USER:
        username, kind = "", CredentialKind.IDENTITY_TOKEN
    return PlainFile(Credential(username, values[given[0]], kind, origin), values.get("registry", ""))


def _wanted(keys: Iterable[str]) -> str:
    return f"expected key=value with one of the keys {', '.join(keys)}"
