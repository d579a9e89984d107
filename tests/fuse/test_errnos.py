"""Every error of regfs reaches a program as the errno that says what it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from regfs import errors
from regfs.errors import RegfsError
from regfs.fuse.errnos import ERRNOS, errno_of


def name_of(kind: type[RegfsError]) -> str:
    return kind.__name__


def leaves(root: type[RegfsError]) -> Iterator[type[RegfsError]]:
    below = [child for child in root.__subclasses__() if child.__module__ == errors.__name__]
    if not below:
        yield root
    for child in below:
        yield from leaves(child)


def instance(kind: type[RegfsError]) -> RegfsError:
    return errors.DeletionDisabled("off", setting="x") if kind is errors.DeletionDisabled else kind("a fact")


@pytest.mark.parametrize("kind", list(leaves(RegfsError)), ids=name_of)
def test_every_error_has_its_errno_from_the_table_and_not_from_the_common_base(
    kind: type[RegfsError],
) -> None:
    named = next(base for base in kind.__mro__ if base in ERRNOS)
    assert named is not RegfsError, f"{kind.__name__} has no line in the table"
    assert errno_of(instance(kind)) == ERRNOS[named]


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (errors.NotFound("x"), errno.ENOENT),
        (errors.NotSignedIn("x"), errno.EACCES),
        (errors.Forbidden("x"), errno.EACCES),
        (errors.ListingRefused("x"), errno.EACCES),
        (errors.ReadOnly("x"), errno.EROFS),
        (errors.Unsupported("x"), errno.ENOTSUP),
        (errors.DeletionDisabled("x", setting="y"), errno.EPERM),
        (errors.Moved("x"), errno.EBUSY),
        (errors.RateLimited("x"), errno.EBUSY),
        (errors.Overloaded("x"), errno.EBUSY),
        (errors.DigestMismatch("x"), errno.EBADMSG),
        (errors.TooLarge("x"), errno.EFBIG),
        (errors.DeadlineExceeded("x"), errno.ETIMEDOUT),
        (errors.TlsFailed("x"), errno.EHOSTUNREACH),
        (errors.ServerFailed("x"), errno.EIO),
        (errors.ModeForbids("x"), errno.EACCES),
        (errors.NoSuchAttribute("x"), errno.ENODATA),
        (errors.AttributeUnsupported("x"), errno.ENOTSUP),
        (RegfsError("x"), errno.EIO),
    ],
)
def test_programs_see_the_errno_that_the_semantics_promise(error: RegfsError, number: int) -> None:
    assert errno_of(error) == number


def test_a_plugins_own_error_maps_like_the_class_it_derives_from() -> None:
    class QuotaGone(errors.RateLimited):
        pass

    assert errno_of(QuotaGone("none left")) == errno.EBUSY
