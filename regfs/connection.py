"""A connection: one registry that the user named, and how to reach it. No secret is ever in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Connection:
    """One registry of the user's: what the config, the sign-in or the command line say about it.

    ``address`` is as the provider normalised it (``localhost:5000``, ``host/prefix``, ``oci:/path``).
    ``namespaces`` are shown where the registry refuses to list; ``only`` fences it: globs of repository names
    (empty: everything). ``allow_hosts`` are hosts that may answer in the registry's place (redirects of names and
    tags), and that redirects and realms may lead to although they are private. ``tag_delete`` "native" forbids the throw-away way of
    deleting a tag. ``options`` are the provider's own.
    ``client_cert`` is shown to the registry's own host and port; its key is in ``client_key``, or in the same file.
    """

    name: str
    address: str
    provider: str = "generic"
    auth: str = "challenge"
    username: str = ""
    insecure: bool = False
    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    namespaces: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    tag_delete: Literal["auto", "native"] = "auto"
    options: tuple[tuple[str, str], ...] = ()
    generation: str = ""
    """Changes with every `regfs login`, so that a running mount knows to ask for credentials anew."""
    part: str = ""
    """The namespace or repository that a credential is wanted for, where the registry has several; kept nowhere."""
    account: str = ""
    """Under which name, beside the address, the keyring has its credential: several accounts may be on one host."""
