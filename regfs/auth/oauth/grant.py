"""A grant as it is kept: tokens, and the one endpoint that they may be shown to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

import msgspec

from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind
from regfs.redaction import register_secret

MARGIN: Final = 0.2
"""The part of its lifetime before its end in which an access token is renewed, at most `MAX_MARGIN` seconds."""
MAX_MARGIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token endpoint gave (RFC 6749, 5.1). ``lifetime`` in seconds from when it was asked for; None: not said."""

    access: str
    refresh: str = ""
    lifetime: float | None = None
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Tokens(lifetime={self.lifetime}, scopes={self.scopes})"


class Grant(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a sign-in by OAuth leaves. Times in seconds since 1970.

    ``username`` is who signs in where the access token goes as a password; empty: it is a Bearer token.
    ``by_client``: the client itself is who signs in (RFC 6749, 4.4), so that a new token needs no refresh token.
    ``basic``: how the client shows its secret (RFC 6749, 2.3.1): by Basic, else in the form.
    """

    token_endpoint: str
    client_id: str
    access_token: str = ""
    refresh_token: str = ""
    client_secret: str = ""
    scopes: tuple[str, ...] = ()
    username: str = ""
    obtained: float = 0.0
    expires: float | None = None
    by_client: bool = False
    basic: bool = False

    def __repr__(self) -> str:
        return f"Grant({self.token_endpoint!r})"

    @property
    def can_renew(self) -> bool:
        """Whether there is anything to get another access token with."""
        return self.by_client or bool(self.refresh_token)

    @property
    def mark(self) -> str:
        """Something that differs for another grant, and tells nothing of it."""
        return hashlib.sha256(f"{self.refresh_token}\0{self.access_token}".encode()).hexdigest()

    def is_fresh(self, now: float) -> bool:
        """Whether its access token is good for a while longer."""
        if not self.access_token:
            return False
        return self.expires is None or now < self.expires - self._margin()

    def is_alive(self, now: float) -> bool:
        """Whether its access token is not known to have ended."""
        return bool(self.access_token) and (self.expires is None or now < self.expires)

    def with_tokens(self, tokens: Tokens, asked: float) -> Grant:
        """The grant after a reply; one without a refresh token leaves the old one good (RFC 6749, 6)."""
        return msgspec.structs.replace(
            self,
            access_token=tokens.access,
            refresh_token="" if self.by_client else tokens.refresh or self.refresh_token,
            scopes=tokens.scopes or self.scopes,
            obtained=asked,
            expires=None if tokens.lifetime is None else asked + tokens.lifetime,
        )

    def kept(self, origin: str = "") -> Credential:
        """The credential to keep: JSON in printable ASCII without blanks, as every place for secrets takes it."""
        for secret in (self.access_token, self.refresh_token, self.client_secret):
            register_secret(secret)
        text = json.dumps(msgspec.to_builtins(self), separators=(",", ":")).replace(" ", "\\u0020")
        return Credential(self.username, text, CredentialKind.OAUTH_GRANT, origin, self.expires)

    def usable(self, origin: str) -> Credential:
        """The credential to send: the access token as a password, or as a Bearer token."""
        kind = CredentialKind.PASSWORD if self.username else CredentialKind.REGISTRY_TOKEN
        return Credential(self.username, self.access_token, kind, origin, self.expires)

    def _margin(self) -> float:
        lifetime = (self.expires or 0.0) - self.obtained
        return min(max(lifetime, 0.0) * MARGIN, MAX_MARGIN)


def read_grant(credential: Credential) -> Grant:
    """The grant in a credential of the kind OAUTH_GRANT. CredentialError: regfs did not write it."""
    try:
        grant = msgspec.json.decode(credential.secret, type=Grant)
    except (ValueError, RecursionError):
        raise CredentialError(
            "what is kept of the OAuth sign-in was not written by regfs; sign in again"
        ) from None
    for secret in (grant.access_token, grant.refresh_token, grant.client_secret):
        register_secret(secret)
    return grant
