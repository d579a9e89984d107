"""Every error tells a person what to do next."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from regfs import errors
from regfs.advice import _SENTENCES, advice


def leaves(kind: type[errors.RegfsError] = errors.RegfsError) -> Iterator[type[errors.RegfsError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == "regfs.errors":
            yield from leaves(child)


ALL = sorted(leaves(), key=lambda kind: kind.__name__)


def made(kind: type[errors.RegfsError], registry: str) -> errors.RegfsError:
    extra = {"setting": "storage.delete.enabled"} if issubclass(kind, errors.DeletionDisabled) else {}
    return kind("a fact", registry=registry, **extra)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("registry", ["localhost:5000", "host.example/prefix", ""])
def test_every_error_has_one_sentence_with_something_to_do(
    kind: type[errors.RegfsError], registry: str
) -> None:
    sentence = advice(made(kind, registry))
    assert re.fullmatch(r"[A-Z][^\n]{20,250}\.", sentence)
    assert "None" not in sentence


def test_every_class_has_a_sentence_of_its_own_place_in_the_table() -> None:
    classes = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.RegfsError) and kind is not errors.RegfsError
    }
    assert classes == set(_SENTENCES)


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (errors.NotSignedIn("x", registry="localhost:5000"), "`regfs login localhost:5000`"),
        (errors.UnknownHost("x", registry="reg.example:5000/p"), "`getent hosts reg.example`"),
        (errors.UnknownHost("x", registry="[::1]:5000"), "`getent hosts ::1`"),
        (errors.TlsFailed("x", registry="reg.example"), "`regfs login --ca FILE reg.example`"),
        (errors.RateLimited("x", retry_after=61.2, registry="r"), "Wait 61 seconds"),
        (errors.RateLimited("x"), "Wait some minutes"),
        (errors.ReadOnly("x"), "--rw"),
        (errors.DeletionDisabled("x", setting="storage.delete.enabled"), "set `storage.delete.enabled`"),
        (errors.UnsafeTarget("x"), "allow_hosts"),
        (errors.ListingRefused("x"), "namespaces"),
    ],
)
def test_the_command_to_run_is_spelled_out(error: errors.RegfsError, command: str) -> None:
    assert command in advice(error)


def test_a_registry_name_is_quoted_for_the_shell() -> None:
    assert "`regfs login 'oci:/my images'`" in advice(errors.NotSignedIn("x", registry="oci:/my images"))


def test_a_plugins_own_error_gets_the_advice_of_its_base() -> None:
    class OutOfQuota(errors.RateLimited):
        pass

    assert advice(OutOfQuota("x")).startswith("Wait some minutes")
