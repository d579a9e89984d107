"""Which GitLab a registry belongs to, as far as that can be said without asking: by what the user, its name or its challenge says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from regfs.auth.challenges import parse_challenges
from regfs.connection import Connection
from regfs.errors import ConfigError, UnsafeTarget
from regfs.reference import Address
from regfs.registry.redirects import Origin, check_spelling

GITLAB_COM: Final = "https://gitlab.com"
REGISTRY_OF_GITLAB_COM: Final = "registry.gitlab.com"

_REALM: Final = "/jwt/auth"
_SERVICE: Final = "container_registry"


def configured(connection: Connection) -> str:
    """The instance's URL as the option ``api`` says it, without a slash at its end; empty where it says nothing.

    ConfigError: it is no URL.
    """
    text = dict(connection.options).get("api", "").strip().rstrip("/")
    if not text:
        return ""
    base = text.removesuffix("/api/v4")
    try:
        address = Address.parse(base)
    except ValueError as error:
        raise ConfigError(f"the option api is no URL: {error}") from None
    if address.scheme not in ("http", "https"):
        raise ConfigError('the option api is the URL of the GitLab, such as "https://gitlab.example.com"')
    return f"{address.scheme}://{address}"


def guessed(connection: Connection) -> str:
    """The instance's URL by what is known without asking: the option, gitlab.com, or the registry's name without ``registry.``."""
    if told := configured(connection):
        return told
    try:
        host = Address.parse(connection.address).host
    except ValueError:
        return ""
    if host == REGISTRY_OF_GITLAB_COM:
        return GITLAB_COM
    return f"https://{host.removeprefix('registry.')}"


def instance_of(challenges: Sequence[str]) -> str:
    """The URL of the GitLab that these ``WWW-Authenticate`` headers send one to for a token; empty: it is none."""
    for challenge in parse_challenges(challenges):
        if challenge.scheme != "bearer" or challenge.service != _SERVICE:
            continue
        try:
            parts = urlsplit(challenge.realm)
            check_spelling(challenge.realm)
            Origin.of(challenge.realm)
            address = Address.parse(f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(_REALM)}")
        except (ValueError, UnsafeTarget):
            continue
        if parts.path.endswith(_REALM):
            return f"{address.scheme}://{address}"
    return ""
