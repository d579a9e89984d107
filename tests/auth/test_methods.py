"""The sign-in methods: what they ask a person, what they keep, and what they hand to others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from regfs.auth.flows import BasicFlow, ChallengeFlow
from regfs.auth.methods import Anonymous, Basic, Challenge
from regfs.connection import Connection
from regfs.errors import CredentialError
from regfs.ports import Credential, CredentialKind
from tests.auth.drive import BOB, IDENTITY, REGISTRY_TOKEN, FixedKeychain

REG = Connection(name="reg", address="reg.example")


def test_which_flow_a_method_gives() -> None:
    keychain = FixedKeychain()
    assert Anonymous().flow(REG, keychain) is None
    assert isinstance(Basic().flow(REG, keychain), BasicFlow)
    assert isinstance(Challenge().flow(REG, keychain), ChallengeFlow)


@pytest.mark.parametrize("method", [Basic(), Challenge()])
def test_what_speaks_no_http_needs_no_flow(method: Basic | Challenge) -> None:
    assert method.flow(Connection(name="x", address="oci:/srv/images"), FixedKeychain()) is None


@pytest.mark.parametrize("method", [Basic(), Challenge()])
def test_a_password_is_asked_for_without_echo_and_kept(method: Basic | Challenge) -> None:
    assert [(field.name, field.secret) for field in method.fields] == [
        ("username", False),
        ("password", True),
    ]
    kept = method.credential({"username": "bob", "password": " p:w "})
    assert kept == Credential("bob", " p:w ", origin="sign-in")


@pytest.mark.parametrize("method", [Basic(), Challenge()])
@pytest.mark.parametrize(
    "answers",
    [
        {},
        {"username": "bob"},
        {"username": "", "password": "x"},
        {"username": "bob", "password": ""},
        {"username": "b:b", "password": "x"},
        {"username": "bob", "password": "x\n"},
    ],
)
def test_an_answer_that_cannot_be_a_credential_says_why(
    method: Basic | Challenge, answers: dict[str, str]
) -> None:
    with pytest.raises(CredentialError, match=r"needs a|cannot be sent"):
        method.credential(answers)


def test_dockers_way_of_writing_an_identity_token() -> None:
    kept = Challenge().credential({"username": "<token>", "password": "abc"})
    assert kept is not None
    assert (kept.username, kept.secret, kept.kind) == ("", "abc", CredentialKind.IDENTITY_TOKEN)
    assert Challenge().for_docker(kept) == ("<token>", "abc")


def test_what_docker_can_be_handed() -> None:
    assert Challenge().for_docker(BOB) == Basic().for_docker(BOB) == ("bob", BOB.secret)
    assert Challenge().for_docker(REGISTRY_TOKEN) is None
    assert Basic().for_docker(IDENTITY) is None
    assert Anonymous().for_docker(BOB) is None


def test_anonymous_asks_and_keeps_nothing() -> None:
    assert list(Anonymous().fields) == []
    assert Anonymous().credential({"username": "bob", "password": "x"}) is None


def test_naming_the_methods_costs_no_heavy_import() -> None:
    code = (
        "import sys, regfs.auth.methods;"
        " print([name for name in ('httpx', 'trio', 'keyring', 'msgspec', 'regfs.auth.flows') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['msgspec']")
