"""What every `AuthMethod` has to do, as tests: subclass `AuthMethodContract` and say which registry wants it.

    class TestForgeKey(AuthMethodContract):
        answers = {"key": SECRET}

        def method(self):
            return ForgeKey()

        def behaviour(self):
            return Behaviour(auth=Auth.KEY)

The registry is a `FakeRegistry` that knows `SECRET`; requests go there as the daemon sends them.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from typing import ClassVar, Final, TypeVar

import httpx
import pytest
import trio

from regfs.connection import Connection
from regfs.errors import AccessDenied, CredentialError, RegfsError
from regfs.ports import (
    AuthMethod,
    Credential,
    CredentialKind,
    Field,
    HttpPolicy,
    RefinesKeychain,
    SignsInWithPerson,
)
from regfs.registry.client import Client
from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import SECRET, USER, OneCredential
from regfs.testing.images import make_image
from regfs.testing.quiet import watched

T = TypeVar("T")

AT_ONCE: Final = 50
_WRONG: Final = "another-secret-that-nobody-may-see"
_DEADLINE: Final = 60.0
_TAGS: Final = "team/app/tags/list"


class AuthMethodContract:
    """The suite. ``answers`` are what a person answers to its fields so that the registry takes it (`USER`, `SECRET`)."""

    answers: ClassVar[Mapping[str, str]] = {}

    def method(self) -> AuthMethod:
        """The auth method under test. Every subclass says its own."""
        raise NotImplementedError("a contract's subclass says what `method` is under test")

    def behaviour(self) -> Behaviour:
        """What the registry wants."""
        return Behaviour()

    def credential(self) -> Credential | None:
        """What the keychain has after that sign-in."""
        return self.method().credential(self.answers)

    def wrong(self) -> Credential | None:
        """A credential of the same kind that the registry does not take."""
        right = self.credential()
        return right and replace(right, secret=_WRONG)

    @pytest.fixture
    def registry(self) -> Iterator[FakeRegistry]:
        """A registry that wants this sign-in; requests that a good client never sends fail the test."""
        behaviour = self.behaviour()
        behaviour.users = {USER: SECRET}
        with FakeRegistry(behaviour) as registry:
            registry.push("team/app", ["v1"], make_image())
            yield registry

    # ── what it says ─────────────────────────────────────────────────────────────────────────────

    def test_it_says_what_it_is(self) -> None:
        method = self.method()
        assert method.name == method.name.lower()
        assert method.name.replace("-", "").isalnum()
        assert method.title.strip() == method.title != ""
        names = [field.name for field in method.fields if isinstance(field, Field) and field.label]
        assert len(names) == len(method.fields) == len(set(names))
        assert type(method)().name == method.name, "it is made without arguments"
        asks_for_secret = any(field.secret for field in method.fields)
        assert asks_for_secret or isinstance(method, SignsInWithPerson) or not method.fields

    def test_what_a_person_answers_is_a_credential_that_shows_no_secret(self) -> None:
        method = self.method()
        if isinstance(method, SignsInWithPerson):
            return  # its answers are not the credential: a conversation is
        credential = method.credential(self.answers)
        assert (credential is None) == (not method.fields)
        assert SECRET not in repr(credential)
        if credential is not None:
            assert credential.secret

    def test_an_answer_that_is_missing_is_said_without_the_others(self) -> None:
        method = self.method()
        if isinstance(method, SignsInWithPerson):
            return
        for field in method.fields:
            if field.required:
                for answers in ({**self.answers, field.name: ""}, _without(self.answers, field.name)):
                    with pytest.raises(CredentialError) as caught:
                        method.credential(answers)
                    assert SECRET not in _whole(caught.value)

    def test_it_spells_a_credential_for_docker_or_says_that_docker_cannot_have_it(self) -> None:
        for kind in CredentialKind:
            pair = self.method().for_docker(Credential(USER, SECRET, kind))
            assert pair is None or (len(pair) == 2 and all(isinstance(part, str) for part in pair)), kind
            if kind is CredentialKind.OAUTH_GRANT:
                assert pair is None, "a grant is no password: whoever has it has the account"

    # ── what it sends ────────────────────────────────────────────────────────────────────────────

    def test_a_flow_asks_for_nothing_until_a_request_needs_it(self, registry: FakeRegistry) -> None:
        with watched() as asked:
            keychain, flow = self._flow(registry, self.credential())
            assert flow is None or isinstance(flow, httpx.Auth)
        assert asked == []
        assert keychain.asked == 0
        assert registry.records == []

    def test_a_request_is_answered(self, registry: FakeRegistry) -> None:
        async def body(client: Client) -> None:
            for _ in range(3):
                assert b"v1" in (await client.request("GET", _TAGS)).body

        self._with(registry, self.credential(), body)

    def test_many_requests_at_once_share_what_was_asked_for(self, registry: FakeRegistry) -> None:
        async def body(client: Client) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(client.request, "GET", _TAGS)

        keychain = self._with(registry, self.credential(), body)
        assert registry.count("tags", status=200) == AT_ONCE
        assert keychain.asked <= 1
        assert registry.tokens == (1 if registry.behaviour.auth is Auth.BEARER else 0)
        assert len(registry.token_requests) == registry.tokens

    def test_a_token_that_is_no_longer_good_is_replaced_once_for_all(self, registry: FakeRegistry) -> None:
        async def body(client: Client) -> None:
            await client.request("GET", _TAGS)
            registry.sign_in.revoke_tokens()
            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(client.request, "GET", _TAGS)

        self._with(registry, self.credential(), body)
        assert registry.tokens == (2 if registry.behaviour.auth is Auth.BEARER else 0)

    def test_who_is_not_signed_in_is_told_so_and_nothing_goes_round(self, registry: FakeRegistry) -> None:
        if registry.behaviour.auth is Auth.NONE:
            return

        async def body(client: Client) -> None:
            with pytest.raises(AccessDenied) as caught:
                await client.request("GET", _TAGS)
            assert _WRONG not in _whole(caught.value)

        for credential in (None, self.wrong()):
            self._with(registry, credential, body)
        assert len(registry.records) <= 12
        assert registry.count("tags", status=200) == 0

    # ── where it sends it ────────────────────────────────────────────────────────────────────────

    def test_another_host_gets_no_credential_however_one_comes_to_it(self, registry: FakeRegistry) -> None:
        blob = make_image().layers[0]

        async def body(client: Client) -> None:
            await client.request("GET", _TAGS)
            for asks in (False, True):
                registry.behaviour.redirect_blobs = "elsewhere"
                registry.behaviour.elsewhere_asks = asks
                await _try(client, f"team/app/blobs/{blob.digest}")
                await _try(client, f"{registry.elsewhere}/v2/{_TAGS}")
                await _try(client, f"{registry.elsewhere_plain}/v2/{_TAGS}")

        self._with(registry, self.credential(), body)
        assert registry.foreign, "nothing came to the other host: the test shows nothing"
        held, registry.violations[:] = list(registry.violations), []
        assert held == []
        assert not any("authorization" in record.headers for record in registry.foreign)

    def test_a_request_of_another_host_passes_through_the_flow_unsigned(self, registry: FakeRegistry) -> None:
        _, flow = self._flow(registry, self.credential())
        if flow is None:
            return

        async def sent() -> list[httpx.Request]:
            request = httpx.Request("GET", "https://another.example/v2/", headers={"X-Own": "kept"})
            steps = flow.async_auth_flow(request)
            found = [await anext(steps)]
            challenge = 'Bearer realm="https://another.example/token",service="s", Basic realm="r"'
            try:
                reply = httpx.Response(401, headers={"WWW-Authenticate": challenge}, request=found[0])
                found.append(await steps.asend(reply))
            except (StopAsyncIteration, RegfsError):
                pass
            await steps.aclose()
            return found

        requests = trio.run(sent)
        assert [str(request.url) for request in requests] == ["https://another.example/v2/"]
        shown = repr(requests[0].headers.raw)
        assert SECRET not in shown
        assert "authorization" not in requests[0].headers
        assert {name.lower() for name in requests[0].headers} <= {"host", "x-own"}

    def test_no_secret_shows_in_a_repr_or_a_log(
        self, registry: FakeRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        method, credential = self.method(), self.credential()
        keychain, flow = self._flow(registry, credential)

        async def body(client: Client) -> None:
            await client.request("GET", _TAGS)
            registry.fail(500)
            for target in (_TAGS, "absent/tags/list"):
                with pytest.raises(RegfsError) as caught:
                    await client.request("GET", target)
                said.append(_whole(caught.value))

        said: list[str] = []
        self._run(registry, flow, body)
        said += [repr(method), repr(flow), repr(getattr(flow, "__dict__", "")), caplog.text]
        secrets = {SECRET} | ({credential.secret} if credential is not None else set())
        assert keychain.credential == credential
        for secret in secrets:
            assert secret not in "\n".join(said)

    # ── within ───────────────────────────────────────────────────────────────────────────────────

    def _flow(
        self, registry: FakeRegistry, credential: Credential | None
    ) -> tuple[OneCredential, httpx.Auth | None]:
        method, keychain = self.method(), OneCredential(credential)
        connection = Connection("registry", registry.address, auth=method.name)
        if isinstance(method, RefinesKeychain):
            return keychain, method.flow(connection, method.refined(connection, keychain, _no_exchange))
        return keychain, method.flow(connection, keychain)

    def _with(
        self,
        registry: FakeRegistry,
        credential: Credential | None,
        body: Callable[[Client], Awaitable[None]],
    ) -> OneCredential:
        keychain, flow = self._flow(registry, credential)
        self._run(registry, flow, body)
        return keychain

    def _run(
        self, registry: FakeRegistry, flow: httpx.Auth | None, body: Callable[[Client], Awaitable[None]]
    ) -> None:
        connection = Connection("registry", registry.address, auth=self.method().name)
        policy = HttpPolicy("regfs-tests", retries=0)

        async def main() -> None:
            client = Client(connection, policy, flow)
            try:
                with trio.fail_after(_DEADLINE):
                    await body(client)
            finally:
                await client.aclose()

        trio.run(main)


async def _no_exchange(request: httpx.Request) -> httpx.Response:
    raise AssertionError(f"a sign-in asks {request.url.host}")


async def _try(client: Client, target: str) -> None:
    try:
        await client.request("GET", target)
    except RegfsError:
        return


def _whole(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def _without(answers: Mapping[str, str], name: str) -> Mapping[str, str]:
    return {key: value for key, value in answers.items() if key != name}
