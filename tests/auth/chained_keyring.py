"""Chains of backends that begin with one that keeps plain text."""

from __future__ import annotations

from typing import Any

from keyring.backends import SecretService
from keyring.backends.chainer import ChainerBackend

from tests.auth.plain_keyring import PlaintextKeyring


class Chain(ChainerBackend):
    """Plain text first, then the Secret Service."""

    backends: Any = (PlaintextKeyring(), SecretService.Keyring())  # type: ignore[no-untyped-call]


class PlainChain(ChainerBackend):
    """Plain text alone."""

    backends: Any = (PlaintextKeyring(),)  # type: ignore[no-untyped-call]
