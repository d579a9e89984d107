"""The desktop's or system's keyring, through the `keyring` library: Secret Service, KWallet, Keychain, wincred.

A backend that keeps plain text, or nothing, is refused by its name. All of it runs in a thread whose wait ends after
10 s: a locked keyring may prompt where nobody sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from regfs.auth.validity import checked
from regfs.auth.words import blotted
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

R = TypeVar("R")

SERVICE: Final = "regfs"
DEADLINE: Final = 10.0

_ENCRYPTING: Final = frozenset(
    {
        "keyring.backends.SecretService.Keyring",
        "keyring.backends.kwallet.DBusKeyring",
        "keyring.backends.kwallet.DBusKeyringKWallet4",
        "keyring.backends.libsecret.Keyring",
        "keyring.backends.macOS.Keyring",
        "keyring.backends.Windows.WinVaultKeyring",
        "keyring_pass.PasswordStoreBackend",
        "keyrings.alt.file.EncryptedKeyring",
        "keyrings.cryptfile.cryptfile.CryptFileKeyring",
    }
)
"""The backends that are the system's own, or encrypt. Of any other one nobody here knows where its secrets go."""


class _Kept(msgspec.Struct):
    username: str
    secret: str
    kind: str = CredentialKind.PASSWORD.value


class KeyringSource:
    """Keeps, gives and forgets credentials: service ``regfs``, one entry for each account at an address."""

    name = "keyring"

    def __init__(self) -> None:
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._stuck = threading.Event()

    async def get(self, connection: Connection) -> Credential | None:
        """The credential for a connection. CredentialError: no usable keyring, or it does not answer."""
        entry = entry_of(connection)
        text = await self._ask(lambda backend: backend.get_password(SERVICE, entry))
        if text is None:
            return None
        try:
            kept = msgspec.json.decode(text, type=_Kept)
            return Credential(kept.username, kept.secret, CredentialKind(kept.kind), origin=self.name)
        except ValueError:
            raise CredentialError(
                f"the keyring's entry for {connection.address} was not written by regfs; sign in again"
            ) from None

    async def store(self, connection: Connection, credential: Credential) -> None:
        """Keep it, in place of an older one. CredentialError: no usable keyring, or it does not take it."""
        checked(credential)
        kept = _Kept(credential.username, credential.secret, credential.kind.value)
        text, entry = msgspec.json.encode(kept).decode(), entry_of(connection)

        def keep(backend: KeyringBackend) -> None:
            backend.set_password(SERVICE, entry, text)

        await self._ask(keep, credential)

    async def erase(self, connection: Connection) -> bool:
        """Forget it; False where there was none. CredentialError: no usable keyring, or it does not answer."""

        entry = entry_of(connection)

        def erase(backend: KeyringBackend) -> bool:
            if backend.get_password(SERVICE, entry) is None:
                return False
            backend.delete_password(SERVICE, entry)
            return True

        return await self._ask(erase)

    async def _ask(self, question: Callable[[KeyringBackend], R], credential: Credential | None = None) -> R:
        if self._stuck.is_set():
            raise CredentialError(
                "the keyring still waits for an answer to its prompt: unlock it, then try again"
            )

        def ask() -> R:
            try:
                return _asked(question, credential)
            finally:
                self._stuck.clear()

        with trio.move_on_after(DEADLINE):
            return await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=self._one_at_a_time)
        self._stuck.set()
        raise CredentialError(
            f"the keyring gave no answer within {DEADLINE:.0f} s: it is probably locked and prompts for its password;"
            " unlock it, then try again"
        )


def entry_of(connection: Connection) -> str:
    """What a connection's entry is called. The whole address is part of it, so that no other host or port gets it.

    Sign-ins of before there were accounts are kept under the address alone.
    """
    return f"{connection.account}@{connection.address}" if connection.account else connection.address


def _asked(question: Callable[[KeyringBackend], R], credential: Credential | None) -> R:
    """In a thread: choose the backend and ask. CredentialError for whatever goes wrong in there."""
    backend = _usable_backend()
    try:
        return question(backend)
    except Exception as error:
        if type(error).__name__ == "KeyringLocked":
            raise CredentialError(
                f"the keyring ({_name(backend)}) is locked: unlock it, then try again"
            ) from None
        reason = f"{type(error).__name__}: {blotted(str(error), credential)}"
        raise CredentialError(f"the keyring ({_name(backend)}) failed ({reason})") from None


def _usable_backend() -> KeyringBackend:
    try:
        import keyring
        from keyring.backends.chainer import ChainerBackend

        chosen = keyring.get_keyring()
        backends = list(chosen.backends) if isinstance(chosen, ChainerBackend) else [chosen]
    except Exception as error:
        raise CredentialError(f"no usable keyring ({type(error).__name__}: {blotted(str(error))})") from None
    for backend in backends:
        if _name(backend) in _ENCRYPTING:
            return backend
    raise CredentialError(f"no usable keyring: {', '.join(_complaints(backends)) or 'there is no backend'}")


def _complaints(backends: list[KeyringBackend]) -> Iterator[str]:
    for backend in backends:
        name = _name(backend)
        if name == "keyring.backends.fail.Keyring":
            yield f"{name} means that no Secret Service, KWallet or the like answers here"
        elif name == "keyring.backends.null.Keyring":
            yield f"{name} keeps nothing"
        else:
            yield f"{name} is not known to encrypt what it keeps"


def _name(backend: KeyringBackend) -> str:
    return f"{type(backend).__module__}.{type(backend).__qualname__}"
