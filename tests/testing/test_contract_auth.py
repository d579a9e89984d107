"""The contract of an auth method, on each of ours; and methods with a fault each, which it has to find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from regfs.auth.methods import Anonymous, Basic, Challenge
from regfs.ports import AuthMethod
from regfs.testing.behaviour import Auth, Behaviour, Challenges
from regfs.testing.contract_auth import AuthMethodContract
from regfs.testing.harness import SECRET, USER
from tests.providers.documented import example


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


class TestTheKeyOfTheDocumentation(AuthMethodContract):
    answers: ClassVar[Mapping[str, str]] = {"key": SECRET}

    def method(self) -> AuthMethod:
        method: AuthMethod = example("key").ForgeKey()
        return method

    def behaviour(self) -> Behaviour:
        return Behaviour(auth=Auth.KEY, key_header="X-Forge-Key")
