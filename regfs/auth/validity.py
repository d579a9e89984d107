"""Whether a credential can be sent at all."""

from __future__ import annotations

import re
from typing import Final

from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]+")
MAX_SECRET: Final = 64 * 1024
TOKEN_USER: Final = "<token>"
"""What Docker's credential protocol has for a user name where the secret is an identity token."""


def checked(credential: Credential) -> Credential:
    """Give it back, or raise CredentialError with the reason why no registry can be sent this."""
    reason = _reason(credential)
    if reason:
        origin = f" (from {credential.origin})" if credential.origin else ""
        raise CredentialError(f"the {credential.kind.value}{origin} cannot be sent: {reason}")
    return credential


def _reason(credential: Credential) -> str:
    if not credential.secret:
        return "it is empty"
    if len(credential.secret) > MAX_SECRET:
        return "it is too long"
    if credential.kind is not CredentialKind.PASSWORD:
        return "" if _HEADER_SAFE.fullmatch(credential.secret) else "it is not a token of printable ASCII"
    if ":" in credential.username:
        return "a user name cannot hold a colon"
    if _CONTROL.search(credential.username) or _CONTROL.search(credential.secret):
        return "it holds a line break or another control character"
    try:
        f"{credential.username}{credential.secret}".encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    return ""
