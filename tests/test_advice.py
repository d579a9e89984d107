"""Every error tells a person what to do next."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from regfs import errors
from regfs.advice import _SENTENCES, advice, remember_sign_in


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


@pytest.mark.parametrize("kind", [errors.Unreachable, errors.ConnectionFailed, errors.NotARegistry])
def test_what_speaks_no_http_is_not_asked_by_curl(kind: type[errors.RegfsError]) -> None:
    assert "curl" in advice(kind("x", registry="localhost:5000/prefix"))
    for registry in ("oci:/srv/images", "shelf:/srv/my.shelf"):
        sentence = advice(kind("x", registry=registry))
        assert registry in sentence
        assert not {"curl", "https://", "HTTPS_PROXY"} & set(re.split(r"[ `]", sentence))
        assert "://" not in sentence


def test_the_login_of_a_connection_has_what_makes_it_that_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regfs.advice._sign_ins", {})
    remember_sign_in("reg.example", lambda: ["--provider", "forge", "--ca", "/my files/ca.pem"])
    options = "--provider forge --ca '/my files/ca.pem'"
    assert f"`regfs login {options} reg.example`" in advice(errors.NotSignedIn("x", registry="reg.example"))
    who = advice(errors.Forbidden("x", registry="reg.example"))
    assert f"`regfs login {options} --username USER reg.example`" in who
    assert "`regfs login other.example`" in advice(errors.NotSignedIn("x", registry="other.example"))


def test_only_a_mistake_in_a_config_file_is_checked_there() -> None:
    assert "config --check" in advice(errors.ConfigError("x", in_file=True))
    assert "config" not in advice(errors.ConfigError("x"))


def test_a_registry_name_is_quoted_for_the_shell() -> None:
    assert "`regfs login 'oci:/my images'`" in advice(errors.NotSignedIn("x", registry="oci:/my images"))


def test_a_plugins_own_error_gets_the_advice_of_its_base() -> None:
    class OutOfQuota(errors.RateLimited):
        pass

    assert advice(OutOfQuota("x")).startswith("Wait some minutes")
