"""The contract of an auth method, on each of ours; and methods with a fault each, which it has to find."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import httpx
import pytest

from regfs.auth.flows import ChallengeFlow
from regfs.auth.methods import Anonymous, Basic, Challenge
from regfs.auth.oauth.grant import Grant, Tokens
from regfs.auth.oauth.method import OAuth
from regfs.connection import Connection
from regfs.errors import CredentialError, NotFound, NotSignedIn
from regfs.ports import AuthMethod, Credential, Field, Keychain
from regfs.testing.behaviour import Auth, Behaviour, Challenges
from regfs.testing.contract_auth import AuthMethodContract
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import SECRET, USER
from regfs.testing.images import make_image
from tests.providers.documented import example
from tests.testing.planted import failures


class TestAnonymous(AuthMethodContract):
    def method(self) -> AuthMethod:
        return Anonymous()


class WithPassword(AuthMethodContract):
    answers: ClassVar[Mapping[str, str]] = {"username": USER, "password": SECRET}


class TestBasic(WithPassword):
    def method(self) -> AuthMethod:
        return Basic()

    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BASIC)


class TestChallengeWithTokens(WithPassword):
    def method(self) -> AuthMethod:
        return Challenge()

    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BEARER)


class TestChallengeWithAPassword(TestChallengeWithTokens):
    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BASIC)


class TestChallengeThatComesAfterOneThatNobodyKnows(TestChallengeWithTokens):
    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BEARER, challenges=Challenges.NEGOTIATE)


class TestChallengeOfSeveralScopes(TestChallengeWithTokens):
    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BEARER, challenges=Challenges.SCOPES)


class TestOAuth(AuthMethodContract):
    """With a grant whose access token is good for an hour: renewing it is tested with its authorization server."""

    def method(self) -> AuthMethod:
        return OAuth()

    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.BEARER)

    def credential(self) -> Credential | None:
        return grant(SECRET)

    def wrong(self) -> Credential | None:
        return grant("another-token-altogether")


def grant(access_token: str) -> Credential:
    kept = Grant("https://auth.example/token", "a-client", username=USER)
    return kept.with_tokens(Tokens(access_token, lifetime=3600.0), time.time()).kept()


class TestTheKeyOfTheDocumentation(AuthMethodContract):
    answers: ClassVar[Mapping[str, str]] = {"key": SECRET}

    def method(self) -> AuthMethod:
        method: AuthMethod = example("key").ForgeKey()
        return method

    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.KEY, key_header="X-Forge-Key")


# ── auth methods with a fault ────────────────────────────────────────────────────────────────────


class Broken(Challenge):
    """The challenge method with one fault."""

    fault = ""

    def __init__(self) -> None:
        if self.fault == "its secret is asked for in the open":
            self._fields = [replace(field, secret=False) for field in super().fields]

    @property
    def fields(self) -> Sequence[Field]:
        return getattr(self, "_fields", super().fields)

    def __repr__(self) -> str:
        return f"Broken({SECRET if self.fault == 'a secret in a repr' else ''})"

    def flow(self, connection: Connection, keychain: Keychain) -> httpx.Auth | None:
        if self.fault == "asks for a name before a request":
            socket.getaddrinfo("127.0.0.1", 1)
        return BrokenFlow(self.fault, connection, keychain)

    def credential(self, answers: Mapping[str, str]) -> Credential | None:
        if self.fault == "keeps an empty answer":
            return Credential(answers.get("username", ""), answers.get("password", ""))
        if self.fault == "repeats the other answers" and not all(map(answers.get, ("username", "password"))):
            raise CredentialError(f"not enough: {answers}")
        return super().credential(answers)

    def for_docker(self, credential: Credential) -> tuple[str, str] | None:
        pair = super().for_docker(credential)
        return (credential.username, credential.secret) if self.fault == "gives Docker a grant" else pair


class BrokenFlow(httpx.Auth):
    """Signs through a proper flow, unless its fault is that it doesn't."""

    def __init__(self, fault: str, connection: Connection, keychain: Keychain) -> None:
        self._fault, self._connection, self._keychain = fault, connection, keychain
        self._proper = ChallengeFlow(connection, keychain)
        self._held = ""
        if fault == "a secret in the flow":
            self._secret = SECRET

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        match self._fault:
            case "signs for every host":
                request.headers["Authorization"] = f"Bearer {SECRET}"
                yield request
                return
            case "answers the challenge of any host":
                if (yield request).status_code == 401 and "fake" not in str(request.url.host):
                    request.headers["Authorization"] = f"Basic {SECRET}"
                    yield request
                return
            case "asks the keychain for each request":
                await self._keychain.get(self._connection)
            case "shares no token":
                self._proper = ChallengeFlow(self._connection, self._keychain)
            case "a secret in a log":
                logging.getLogger("regfs").debug("signing with %s", SECRET)
            case "keeps a token for ever" if self._held:
                request.headers["Authorization"] = self._held
                yield request
                return
        steps = self._proper.async_auth_flow(request)
        try:
            sent = await anext(steps)
            while True:
                reply = yield sent
                self._held = sent.headers.get("Authorization", self._held)
                if self._fault == "goes round where it is refused" and reply.status_code == 401:
                    for _ in range(40):
                        reply = yield sent
                if self._fault == "a secret in an exception" and reply.status_code == 500:
                    raise NotSignedIn(f"not with {SECRET}")
                if self._fault == "takes a refusal for an answer" and reply.status_code == 401 and self._held:
                    raise NotFound("nothing there")
                sent = await steps.asend(reply)
        except StopAsyncIteration:
            return


class BrokenContract(TestChallengeWithTokens):
    fault: ClassVar[str] = ""

    def method(self) -> AuthMethod:
        method: AuthMethod = type("Broken", (Broken,), {"fault": self.fault})()
        return method


FAULTS = {
    "its secret is asked for in the open": "test_it_says_what_it_is",
    "keeps an empty answer": "test_an_answer_that_is_missing_is_said_without_the_others",
    "repeats the other answers": "test_an_answer_that_is_missing_is_said_without_the_others",
    "gives Docker a grant": "test_it_spells_a_credential_for_docker_or_says_that_docker_cannot_have_it",
    "asks for a name before a request": "test_a_flow_asks_for_nothing_until_a_request_needs_it",
    "signs for every host": "test_a_request_of_another_host_passes_through_the_flow_unsigned",
    "answers the challenge of any host": "test_a_request_of_another_host_passes_through_the_flow_unsigned",
    "asks the keychain for each request": "test_many_requests_at_once_share_what_was_asked_for",
    "shares no token": "test_many_requests_at_once_share_what_was_asked_for",
    "keeps a token for ever": "test_a_token_that_is_no_longer_good_is_replaced_once_for_all",
    "goes round where it is refused": "test_who_is_not_signed_in_is_told_so_and_nothing_goes_round",
    "takes a refusal for an answer": "test_who_is_not_signed_in_is_told_so_and_nothing_goes_round",
    "a secret in a repr": "test_no_secret_shows_in_a_repr_or_a_log",
    "a secret in the flow": "test_no_secret_shows_in_a_repr_or_a_log",
    "a secret in a log": "test_no_secret_shows_in_a_repr_or_a_log",
    "a secret in an exception": "test_no_secret_shows_in_a_repr_or_a_log",
}
"""Each fault, and the test of the suite that has to fail for it."""


@contextmanager
def started(suite: AuthMethodContract) -> Iterator[FakeRegistry]:
    behaviour = suite.behaviour()
    behaviour.users = {USER: SECRET}
    with FakeRegistry(behaviour) as registry:
        registry.push("team/app", ["v1"], make_image())
        yield registry


def found_by_the_suite(fault: str, caplog: pytest.LogCaptureFixture) -> set[str]:
    suite: AuthMethodContract = type("Contract", (BrokenContract,), {"fault": fault})()
    return failures(suite, {"registry": lambda: started(suite)}, caplog)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_finds_the_fault(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    assert FAULTS[fault] in found_by_the_suite(fault, caplog)


def test_the_suite_finds_nothing_where_nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    assert found_by_the_suite("", caplog) == set()
