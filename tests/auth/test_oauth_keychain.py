"""Access tokens are renewed in one place: in time, once for all who wait, and by no one else at the same moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import pytest
import trio
from trio.testing import MockClock

from regfs.auth.credentials import Holder
from regfs.auth.oauth import keychain as module
from regfs.auth.oauth.grant import Grant, read_grant
from regfs.auth.oauth.keychain import GrantKeychain
from regfs.connection import Connection
from regfs.errors import ConnectionFailed, CredentialError, NotSignedIn, RegfsError, SignInEnded
from regfs.opening import open_registries
from regfs.ports import Credential, CredentialKind, HttpPolicy

HERE = Connection("work", "reg.example", auth="oauth")
ENDPOINT = "https://as.example/token"
EPOCH = 1_700_000_000.0


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    module._held.clear()
    yield
    module._held.clear()


def now() -> float:
    return EPOCH + trio.current_time()


def kept(**changes: object) -> Credential:
    fields: dict[str, object] = {
        "access_token": "at-0", "refresh_token": "rt-0", "obtained": EPOCH, "expires": EPOCH + 3600
    } | changes  # fmt: skip
    return Grant(ENDPOINT, "app", **fields).kept("keyring")  # type: ignore[arg-type]


@dataclass
class Keyring:
    """What a keyring keeps, for one connection or several processes."""

    credential: Credential | None = None
    writable: bool = True
    failing: bool = False
    asked: int = 0
    stored: list[Grant] = field(default_factory=list)

    async def get(self, _: Connection) -> Credential | None:
        self.asked += 1
        if self.failing:
            raise CredentialError("the keyring is locked")
        return self.credential

    async def store(self, _: Connection, credential: Credential) -> None:
        await trio.sleep(0.01)
        if not self.writable:
            raise CredentialError("the keyring is read-only")
        self.credential = credential
        self.stored.append(read_grant(credential))


@dataclass
class Server:
    """A token endpoint that rotates: each refresh token is good once."""

    good: str = "rt-0"
    delay: float = 0.0
    lifetime: int = 3600
    failures: list[RegfsError] = field(default_factory=list)
    error: str = ""
    used: list[str] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == ENDPOINT
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.used.append(form.get("refresh_token", form["grant_type"]))
        await trio.sleep(self.delay)
        if self.failures:
            raise self.failures.pop(0)
        wrong = form["grant_type"] == "refresh_token" and form["refresh_token"] != self.good
        if self.error or wrong:
            return httpx.Response(400, json={"error": self.error or "invalid_grant"}, request=request)
        number = len(self.used)
        self.good = f"rt-{number}"
        reply = {"access_token": f"at-{number}", "refresh_token": self.good, "expires_in": self.lifetime}
        return httpx.Response(200, json=reply, request=request)


def run(test: Callable[[], Awaitable[None]]) -> None:
    # A thread opens the lock's file: the clock jumps only where nothing is under way for a moment.
    trio.run(test, clock=MockClock(autojump_threshold=0.03))


def keychain(keyring: Keyring, server: Server, connection: Connection = HERE) -> GrantKeychain:
    return GrantKeychain(connection, keyring, server, now)


async def token(chain: GrantKeychain) -> str:
    credential = await chain.get(HERE)
    assert credential is not None
    return credential.secret


def test_an_access_token_is_a_bearer_token_or_a_users_password() -> None:
    async def test() -> None:
        bearer = await keychain(Keyring(kept()), Server()).get(HERE)
        password = await keychain(Keyring(kept(username="oauth2")), Server()).get(HERE)
        assert bearer is not None
        assert password is not None
        assert (bearer.kind, bearer.secret) == (CredentialKind.REGISTRY_TOKEN, "at-0")
        assert (password.kind, password.username) == (CredentialKind.PASSWORD, "oauth2")
        assert bearer.expires == EPOCH + 3600

    run(test)


def test_what_is_no_grant_passes_as_it_is() -> None:
    async def test() -> None:
        other = Credential("bob", "password")
        assert await keychain(Keyring(other), Server()).get(HERE) == other
        assert await keychain(Keyring(None), Server()).get(HERE) is None

    run(test)


def test_it_is_renewed_shortly_before_its_end_and_what_is_rotated_is_kept_at_once() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept()), Server()
        chain = keychain(keyring, server)
        await trio.sleep(3500)
        assert (await token(chain), server.used) == ("at-0", [])
        await trio.sleep(60)
        assert await token(chain) == "at-1"
        assert [grant.refresh_token for grant in keyring.stored] == ["rt-1"]
        await trio.sleep(3590)
        assert await token(chain) == "at-2"
        assert server.used == ["rt-0", "rt-1"]

    run(test)


def test_one_renewal_serves_all_who_wait() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1)), Server(delay=1)
        chain, got = keychain(keyring, server), list[str]()

        async def reader() -> None:
            got.append(await token(chain))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(reader)
        assert (got, server.used) == (["at-1"] * 50, ["rt-0"])

    run(test)


def test_several_processes_renew_once_and_the_others_take_what_was_kept() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1)), Server(delay=0.2)
        chains, got = [keychain(keyring, server) for _ in range(4)], list[str]()

        async def reader(chain: GrantKeychain) -> None:
            got.append(await token(chain))

        async with trio.open_nursery() as nursery:
            for chain in chains:
                nursery.start_soon(reader, chain)
        assert (set(got), server.used) == ({"at-1"}, ["rt-0"])

    run(test)


def test_who_stops_waiting_does_not_lose_the_refresh_token_that_was_given() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1)), Server(delay=5)
        chain = keychain(keyring, server)
        with trio.move_on_after(1) as impatient:
            await token(chain)
        assert impatient.cancelled_caught
        await trio.sleep(10)
        assert [grant.refresh_token for grant in keyring.stored] == ["rt-1"]
        assert (await token(chain), len(server.used)) == ("at-1", 1)

    run(test)


def test_a_refresh_token_that_another_process_rotated_meanwhile_is_no_end() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1)), Server(good="rt-other", delay=1)
        chain, got = keychain(keyring, server), list[str]()

        async def reader() -> None:
            got.append(await token(chain))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await trio.sleep(0.5)  # one that knows nothing of our lock
            keyring.credential = kept(access_token="old", refresh_token="rt-other", expires=EPOCH - 1)
        assert (server.used, got) == (["rt-0", "rt-other"], ["at-2"])

    run(test)


def test_a_revoked_sign_in_names_the_command_and_is_not_asked_about_again() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1)), Server(error="invalid_grant")
        chain = keychain(keyring, server)
        for _ in range(40):
            with pytest.raises(SignInEnded, match="`regfs reconnect work`"):
                await token(chain)
            await trio.sleep(5)
        assert server.used == ["rt-0"]
        assert keyring.asked < 12
        server.error, server.good = "", "rt-new"
        keyring.credential = kept(access_token="at-new", refresh_token="rt-new", expires=EPOCH + 9000)
        await trio.sleep(module.LOOK_AGAIN)
        assert await token(chain) == "at-new"

    run(test)


def test_a_server_that_does_not_answer_is_asked_less_and_less_and_a_live_token_serves_on() -> None:
    async def test() -> None:
        keyring = Keyring(kept())
        server = Server(failures=[ConnectionFailed("no route", registry="as.example") for _ in range(400)])
        chain = keychain(keyring, server)
        await trio.sleep(3590)
        assert await token(chain) == "at-0"
        for _ in range(60):
            await trio.sleep(5)
            try:
                assert await token(chain) == "at-0"
            except ConnectionFailed:
                assert now() >= EPOCH + 3600
        assert 5 <= len(server.used) <= 8
        server.failures.clear()
        await trio.sleep(module.MAX_PAUSE)
        assert (await token(chain)).startswith("at-")

    run(test)


def test_what_cannot_be_kept_is_held_in_memory_for_all_of_the_process_until_somebody_signs_in_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(expires=EPOCH - 1), writable=False), Server()
        assert await token(keychain(keyring, server)) == "at-1"
        assert "held in memory only" in caplog.text
        assert await token(keychain(keyring, server)) == "at-1"
        await trio.sleep(4000)
        assert await token(keychain(keyring, server)) == "at-2"
        assert server.used == ["rt-0", "rt-1"]
        keyring.credential = kept(access_token="at-new", refresh_token="rt-new", expires=EPOCH + 9000)
        assert await token(keychain(keyring, server)) == "at-new"

    run(test)


def test_a_keyring_that_is_locked_meanwhile_does_not_end_a_sign_in_that_is_in_use() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept()), Server()
        chain = keychain(keyring, server)
        await token(chain)
        keyring.failing = True
        await trio.sleep(3590)
        assert await token(chain) == "at-1"

    run(test)


def test_a_token_that_the_registry_refuses_is_renewed_once_and_a_second_refusal_says_so() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept()), Server()
        chain = keychain(keyring, server)
        first = await chain.get(HERE)
        assert first is not None
        second = await chain.renewed(HERE, first)
        assert second is not None
        assert second.secret == "at-1"
        assert await chain.renewed(HERE, first) == second  # others who were refused with the first
        for _ in range(20):
            with pytest.raises(SignInEnded, match=r"does not take the access token that as\.example gives"):
                await chain.renewed(HERE, second)
            await trio.sleep(25)
        assert server.used == ["rt-0"]

    run(test)


def test_a_token_without_a_refresh_token_ends_with_the_command_that_helps() -> None:
    async def test() -> None:
        keyring, server = Keyring(kept(refresh_token="", expires=None)), Server()
        chain = keychain(keyring, server)
        await trio.sleep(80_000)
        first = await chain.get(HERE)
        assert first is not None
        with pytest.raises(SignInEnded, match="no refresh token"):
            await chain.renewed(HERE, first)
        assert server.used == []

    run(test)


def test_a_client_gets_a_new_token_by_its_secret_also_from_a_file() -> None:
    async def test() -> None:
        here = Connection(
            "work", "reg.example", options=(("oauth_flow", "client"), ("oauth_token_endpoint", ENDPOINT))
        )
        server = Server()
        chain = GrantKeychain(here, Keyring(Credential("app", "a-secret"), writable=False), server, now)
        first = await chain.get(here)
        await trio.sleep(3590)
        second = await chain.get(here)
        assert (first and first.secret, second and second.secret) == ("at-1", "at-2")
        assert server.used == ["client_credentials"] * 2

    run(test)


def test_a_holder_asks_anew_when_the_end_is_near_and_all_who_wait_share_it() -> None:
    async def test() -> None:
        import time

        start = time.time()
        keyring = Keyring(kept(obtained=start, expires=start + 100))
        server = Server(lifetime=100, delay=1)
        chain = GrantKeychain(HERE, keyring, server, lambda: start + trio.current_time())
        holder, got = Holder(HERE, chain), set[str]()

        async def reader() -> None:
            credential = await holder.get()
            got.add(credential.secret if credential else "")

        await reader()
        before = holder.generation
        await trio.sleep(95)
        got.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(reader)
        assert (got, server.used) == ({"at-1"}, ["rt-0"])
        assert holder.generation == before + 1

    run(test)


def test_a_refusal_at_the_holder_is_what_the_keychain_says() -> None:
    async def test() -> None:
        chain = keychain(Keyring(kept()), Server(error="invalid_grant"))
        holder = Holder(HERE, chain)
        first = await holder.get()
        assert first is not None
        with pytest.raises(SignInEnded):
            await holder.replacement(first, NotSignedIn("401"))
        assert isinstance(holder.refusal(), SignInEnded)

    run(test)


def test_a_grant_is_sent_to_no_registry_whose_method_knows_nothing_of_it() -> None:
    async def test() -> None:
        policy = HttpPolicy("regfs/test", call_deadline=5)
        here = Connection("work", "127.0.0.1:9", provider="generic", auth="challenge")
        from regfs.opening import refined

        with pytest.raises(CredentialError, match="sign-in by OAuth"):
            await refined(here, Keyring(kept()), policy).get(here)
        assert await open_registries(here, Keyring(kept()), policy, Path("/nonexistent"))

    run(test)


def test_old_tokens_are_forgotten_by_the_log_and_the_living_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from regfs import redaction

    monkeypatch.setattr(redaction, "_registered", set())
    redaction._known.cache_clear()

    async def test() -> None:
        keyring, server = Keyring(kept()), Server()
        chain = keychain(keyring, server)
        for _ in range(40):
            await trio.sleep(3600)
            last = await token(chain)
        assert last not in redaction.redact(f"x {last} y")
        assert len(redaction._registered) < 40 * 20

    run(test)
    redaction._known.cache_clear()
