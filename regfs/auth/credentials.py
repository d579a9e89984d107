"""The credential of one connection: asked for when first needed, once for all who wait, and again when it is refused."""

from __future__ import annotations

import copy
import time
from typing import Final

import trio

from regfs.connection import Connection
from regfs.errors import CredentialError, NotSignedIn
from regfs.ports import Credential, Keychain, RenewsCredentials

ASK_AGAIN: Final = 60.0
"""Seconds after which a keychain that had nothing, or failed, is asked once more."""
ASK_AGAIN_REFUSED: Final = 30.0
"""Seconds for which a refused credential is not sent again: a walk over a mount must not lock an account."""
RENEW_BEFORE: Final = 30.0
"""Seconds before a credential's end, at most, from which on the keychain is asked for its successor."""
RENEW_PART: Final = 0.1
"""The part of its remaining life for which that is done, where it is less."""
JUST_ASKED: Final = 10.0
"""Seconds for which what the keychain said is new enough not to be asked again for."""


class Holder:
    """Holds what the keychain says about one connection. ``generation`` changes whenever the credential may have."""

    def __init__(self, connection: Connection, keychain: Keychain) -> None:
        self._connection = connection
        self._keychain = keychain
        self._lock = trio.Lock()
        self._credential: Credential | None = None
        self._error: CredentialError | None = None
        self._asked: float | None = None
        self._ends = 0.0
        self._renew_at: float | None = None
        self._refusal: NotSignedIn | None = None
        self._refusal_ends = 0.0
        self.generation = 0

    @property
    def failure(self) -> CredentialError | None:
        """Why the keychain could not say, if it could not."""
        return self._error

    def refusal(self) -> NotSignedIn | None:
        """The error of a credential that was refused a moment ago; a copy, as several tasks may raise it."""
        if self._refusal is None or trio.current_time() >= self._refusal_ends:
            return None
        return copy.copy(self._refusal)

    def forget(self) -> None:
        """Drop everything: the next who needs a credential asks the keychain."""
        self._credential = self._error = self._asked = self._refusal = None
        self.generation += 1

    async def get(self) -> Credential | None:
        """The credential, or None where there is none or the keychain failed (then `failure` says why).

        Raises what a keychain that renews credentials raises where it cannot: NotSignedIn, and what is worth another try.
        """
        async with self._lock:
            while not self._is_known():
                await self._ask()
            return self._credential

    async def replacement(self, refused: Credential, error: NotSignedIn) -> Credential | None:
        """A credential other than the ``refused`` one, where the keychain has one by now.

        None where it has not: then ``error`` is what `refusal` gives for a while. Raises as `get` does.
        """
        async with self._lock:
            if self._credential == refused:
                await self._look_for_another(refused)
            if self._credential is not None and self._credential != refused:
                return self._credential
            self._refuse(error)
            return None

    async def _look_for_another(self, refused: Credential) -> None:
        if isinstance(self._keychain, RenewsCredentials):
            try:
                self._learn(await self._keychain.renewed(self._connection, refused), None)
            except NotSignedIn as error:
                self._refuse(error)
                raise
            except CredentialError:
                return
        elif not self._was_just_asked():
            self._asked = None
            while not self._is_known():
                await self._ask()

    def _refuse(self, error: NotSignedIn) -> None:
        self._refusal = error
        self._refusal_ends = trio.current_time() + ASK_AGAIN_REFUSED

    def _is_known(self) -> bool:
        if self._asked is None or (self._renew_at is not None and trio.current_time() >= self._renew_at):
            return False
        return self._credential is not None or trio.current_time() < self._ends

    def _was_just_asked(self) -> bool:
        return self._asked is not None and trio.current_time() - self._asked < JUST_ASKED

    async def _ask(self) -> None:
        generation = self.generation
        credential, error = None, None
        try:
            credential = await self._keychain.get(self._connection)
        except CredentialError as failure:
            error = failure
        if generation != self.generation:  # forgotten meanwhile: what we were told is of before
            return
        self._learn(credential, error)

    def _learn(self, credential: Credential | None, error: CredentialError | None) -> None:
        now, same = trio.current_time(), credential == self._credential
        if not same:
            self.generation += 1
        self._credential, self._error = credential, error
        self._asked = now
        self._ends = now + ASK_AGAIN
        self._refusal = None
        self._renew_at = None
        if credential is not None and credential.expires is not None:
            # A keychain that has no other one yet is not asked for each request.
            left = credential.expires - time.time()
            self._renew_at = now + max(
                left - min(RENEW_BEFORE, left * RENEW_PART), JUST_ASKED if same else 0.5
            )
