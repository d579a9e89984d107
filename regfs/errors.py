"""Everything that can go wrong, as one small hierarchy.

No errno here: ``regfs.fuse.errnos`` maps every leaf to one, and ``regfs.advice``
says what a person can do next.

RegfsError
├── NotFound                    there is no such name, tag, repository or digest
├── AccessDenied
│   ├── NotSignedIn             401: there are no credentials
│   │   ├── CredentialRefused   credentials that the registry does not take
│   │   └── SignInEnded         a sign-in that was kept is good no longer, and only a person can renew it
│   ├── Forbidden               403: signed in, but not allowed
│   └── ListingRefused          the registry does not let this caller list what it holds
├── ReadOnly                    the mount is read-only
├── Unsupported                 this registry, or this version of regfs, has no such thing
├── Refused                     possible in principle, not permitted here
│   ├── DeletionDisabled        the registry's deletion switch is off
│   └── WriteRefused            a write that this version does not do
├── Moved                       the tag points elsewhere than the user saw
│   └── HalfDeleted             a deletion by regfs is under way there, or was broken off
├── Overloaded                  too many calls already wait on this registry
├── RateLimited                 429, after the retries
├── DigestMismatch              bytes that are not what their digest says
├── TooLarge                    over a limit of ours
├── DeadlineExceeded            no answer in time
├── Unreachable
│   ├── UnknownHost             the name does not resolve
│   ├── ConnectionFailed        refused, reset, no route
│   └── TlsFailed               certificate or handshake
├── BadReply                    anything else that the registry did wrong
│   ├── NotARegistry            something answers there, but it speaks no registry protocol
│   ├── PagingLoop              a listing that does not end
│   ├── UnsafeTarget            a redirect, realm or next page we will not follow
│   └── ServerFailed            5xx, after the retries
├── FileError                   what a filesystem says about its own names
│   ├── NotEmpty
│   ├── IsADirectory
│   ├── NotADirectory
│   ├── ModeForbids             a use that its permission bits do not allow
│   ├── Replaced                a file whose name stands for another one by now
│   ├── NoSuchAttribute         an extended attribute in `user.` that is not there
│   └── AttributeUnsupported    an extended attribute outside `user.`
├── CredentialError             a credential source failed (having none is no failure)
├── ConfigError                 a setting that cannot be used
├── PluginError                 a plugin that cannot be used
│   └── NoSuchPlugin            no plugin bears that name
└── MountError                  a folder that cannot be mounted on
"""

from __future__ import annotations


class RegfsError(Exception):
    """Base of all errors of regfs.

    ``message`` is a fact in one line. ``registry`` is the host (or path) it happened on,
    ``words`` the registry's own words, where it had any: untrusted text, already shortened.
    """

    def __init__(self, message: str, *, registry: str = "", words: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.registry = registry
        self.words = words

    def __str__(self) -> str:
        said = f' (the registry said: "{self.words}")' if self.words else ""
        return f"{self.message}{said}"


class NotFound(RegfsError):
    """There is no such name, tag, repository or digest."""


class AccessDenied(RegfsError):
    """The registry does not let this caller do that."""


class NotSignedIn(AccessDenied):
    """401: there are no credentials, or the registry does not take them."""


class CredentialRefused(NotSignedIn):
    """The registry does not take the credentials: whatever it answers to them says nothing about names."""


class SignInEnded(NotSignedIn):
    """A sign-in that was kept is good no longer, and only a person can renew it. ``connection`` is its name."""

    def __init__(self, message: str, *, connection: str = "", registry: str = "", words: str = "") -> None:
        super().__init__(message, registry=registry, words=words)
        self.connection = connection


class Forbidden(AccessDenied):
    """403: the credentials are good, and do not allow this."""


class ListingRefused(AccessDenied):
    """The registry does not say what it holds; names that are known still resolve."""


class ReadOnly(RegfsError):
    """The mount is read-only."""


class Unsupported(RegfsError):
    """This registry, or this version of regfs, has no such thing."""


class Refused(RegfsError):
    """Possible in principle, and not permitted here."""


class DeletionDisabled(Refused):
    """The registry has its deletion switch off; ``setting`` names the switch."""

    def __init__(self, message: str, *, setting: str, registry: str = "", words: str = "") -> None:
        super().__init__(message, registry=registry, words=words)
        self.setting = setting


class WriteRefused(Refused):
    """A write that this version does not do: making, renaming, changing."""


class Moved(RegfsError):
    """The tag points elsewhere than the user saw."""


class HalfDeleted(Moved):
    """A deletion of the tag by regfs is under way, or was broken off: what the tag holds is no content of anybody's."""


class Overloaded(RegfsError):
    """Too many calls already wait on this registry."""


class RateLimited(RegfsError):
    """429, after the retries. ``retry_after`` is in seconds, where the registry said so."""

    def __init__(
        self, message: str, *, retry_after: float | None = None, registry: str = "", words: str = ""
    ) -> None:
        super().__init__(message, registry=registry, words=words)
        self.retry_after = retry_after


class DigestMismatch(RegfsError):
    """Bytes that are not what their digest says."""


class TooLarge(RegfsError):
    """Over a limit of ours."""


class DeadlineExceeded(RegfsError):
    """No answer in time."""


class Unreachable(RegfsError):
    """Nothing answers there."""


class UnknownHost(Unreachable):
    """The name does not resolve."""


class ConnectionFailed(Unreachable):
    """Refused, reset, closed early, no route. ``sent`` is False where surely nothing of the request went out."""

    def __init__(self, message: str, *, sent: bool = True, registry: str = "", words: str = "") -> None:
        super().__init__(message, registry=registry, words=words)
        self.sent = sent


class TlsFailed(Unreachable):
    """The certificate or the handshake is not acceptable. ``speaks_tls`` is False where the other side speaks no TLS."""

    def __init__(self, message: str, *, speaks_tls: bool = True, registry: str = "", words: str = "") -> None:
        super().__init__(message, registry=registry, words=words)
        self.speaks_tls = speaks_tls


class BadReply(RegfsError):
    """Anything else that the registry did wrong."""


class NotARegistry(BadReply):
    """Something answers there, and it speaks no registry protocol."""


class PagingLoop(BadReply):
    """A listing that does not end."""


class UnsafeTarget(BadReply):
    """A redirect, realm or next page that is not followed."""


class ServerFailed(BadReply):
    """5xx, after the retries."""


class FileError(RegfsError):
    """What a filesystem says about its own names."""


class NotEmpty(FileError):
    """rmdir of a folder that still holds something."""


class IsADirectory(FileError):
    """A folder where a file is needed."""


class NotADirectory(FileError):
    """A file where a folder is needed."""


class ModeForbids(FileError):
    """A use that the permission bits do not allow: running a file, listing a folder of mode 0111."""


class Replaced(FileError):
    """A file whose name stands for another one by now: whoever looks it up again, as the kernel does, gets that."""


class NoSuchAttribute(FileError):
    """An extended attribute in ``user.`` that is not there."""


class AttributeUnsupported(FileError):
    """An extended attribute outside ``user.``."""


class CredentialError(RegfsError):
    """A credential source failed. Having no credential is no failure."""


class ConfigError(RegfsError):
    """A setting that cannot be used: of the command line, or (``in_file``) of a config file."""

    def __init__(self, message: str, *, in_file: bool = False, registry: str = "", words: str = "") -> None:
        super().__init__(message, registry=registry, words=words)
        self.in_file = in_file


class PluginError(RegfsError):
    """A plugin that cannot be used."""


class NoSuchPlugin(PluginError):
    """No plugin bears that name; the message lists those that there are."""


class MountError(RegfsError):
    """A folder that cannot be mounted on; the message says how to mend it."""
