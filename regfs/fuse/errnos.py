"""The one table from what went wrong to the errno that a program sees."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from regfs import errors
from regfs.errors import RegfsError

ERRNOS: Final[Mapping[type[RegfsError], int]] = {
    RegfsError: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.AccessDenied: errno.EACCES,
    errors.ReadOnly: errno.EROFS,
    errors.Unsupported: errno.ENOTSUP,
    errors.Refused: errno.EPERM,
    errors.Moved: errno.EBUSY,
    errors.Overloaded: errno.EBUSY,
    errors.RateLimited: errno.EBUSY,
    errors.DigestMismatch: errno.EBADMSG,
    errors.TooLarge: errno.EFBIG,
    errors.DeadlineExceeded: errno.ETIMEDOUT,
    errors.Unreachable: errno.EHOSTUNREACH,
    errors.BadReply: errno.EIO,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.IsADirectory: errno.EISDIR,
    errors.NotADirectory: errno.ENOTDIR,
    errors.ModeForbids: errno.EACCES,
    errors.Replaced: errno.ESTALE,
    errors.NoSuchAttribute: errno.ENODATA,
    errors.AttributeUnsupported: errno.ENOTSUP,
    errors.CredentialError: errno.EACCES,
    errors.ConfigError: errno.EIO,
    errors.PluginError: errno.EIO,
    errors.MountError: errno.EIO,
}
"""A class stands for its subclasses, where those have no line of their own: a plugin's errors map like their base."""


def errno_of(error: RegfsError) -> int:
    """The errno for ``error``: that of the nearest class in the table."""
    return next(ERRNOS[base] for base in type(error).__mro__ if base in ERRNOS)
