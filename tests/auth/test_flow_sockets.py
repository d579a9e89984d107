"""The challenge flow over real sockets, on the client that the product uses, to real servers."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from regfs.auth.flows import ChallengeFlow
from regfs.connection import Connection
from regfs.errors import BadReply, ConnectionFailed, NotSignedIn, UnsafeTarget
from regfs.ports import Credential, CredentialKind, HttpPolicy, Keychain
from regfs.registry.client import Client
from tests.auth.drive import FixedKeychain
from tests.auth.server import serve
from tests.support.registry import DockerRegistry
from tests.support.tokens import TokenServer

POLICY = HttpPolicy("regfs/tests", retries=0)
TESTER = Credential("tester", "a-password")


def connection_to(address: str) -> Connection:
    return Connection(name="reg", address=address)


async def with_client(
    address: str, keychain: Keychain, test: Callable[[Client, ChallengeFlow], object]
) -> None:
    connection = connection_to(address)
    flow = ChallengeFlow(connection, keychain)
    client = Client(connection, POLICY, flow)
    try:
        await test(client, flow)  # type: ignore[misc]
    finally:
        await client.aclose()


def run(address: str, keychain: Keychain, test: Callable[[Client, ChallengeFlow], object]) -> None:
    trio.run(with_client, address, keychain, test)


# ── Docker's own registry ──


def test_a_registry_with_a_password_file(docker_registry: Callable[..., DockerRegistry]) -> None:
    registry = docker_registry(htpasswd={"tester": "a-password"})
    registry.push("team/app", "v1")

    async def right(client: Client, _: ChallengeFlow) -> None:
        for target in ("", "_catalog", "team/app/tags/list", "team/app/tags/list"):
            assert (await client.request("GET", target)).status == 200
        assert client.counters()["unauthorized"] == 1

    async def wrong(client: Client, _: ChallengeFlow) -> None:
        with pytest.raises(NotSignedIn, match="wrong user name or password"):
            await client.request("GET", "team/app/tags/list")

    async def nobody(client: Client, _: ChallengeFlow) -> None:
        with pytest.raises(NotSignedIn):
            await client.request("GET", "team/app/tags/list")

    run(registry.address, FixedKeychain((TESTER,)), right)
    run(registry.address, FixedKeychain((Credential("tester", "wrong"),)), wrong)
    run(registry.address, FixedKeychain(), nobody)


def test_a_registry_with_tokens_by_every_kind_of_credential(
    docker_registry: Callable[..., DockerRegistry], token_server: Callable[..., TokenServer]
) -> None:
    tokens = token_server()
    registry = docker_registry(token=tokens)
    for name in ("team/app", "team/other"):
        registry.push(name, ["v1", "v2"])
    access: list[dict[str, object]] = [{"type": "repository", "name": "team/app", "actions": ["pull"]}]
    identity = Credential("", tokens.new_refresh_token("tester"), CredentialKind.IDENTITY_TOKEN)
    bearer = Credential("", tokens.sign("tester", access), CredentialKind.REGISTRY_TOKEN)
    tokens.requests.clear()

    async def all_of_it(client: Client, _: ChallengeFlow) -> None:
        for target in ("", "_catalog", "team/app/manifests/v1", "team/app/tags/list", "team/other/tags/list"):
            headers = {"Accept": "*/*, application/vnd.oci.image.manifest.v1+json"}
            assert (await client.request("GET", target, headers=headers)).status == 200
        # The API's root, the catalog, and one repository each cost a 401; the other repository is known how to ask for.
        assert client.counters()["unauthorized"] == 3

    async def one(client: Client, _: ChallengeFlow) -> None:
        for _n in range(3):
            assert (await client.request("GET", "team/app/tags/list")).status == 200

    run(registry.address, FixedKeychain((TESTER,)), all_of_it)
    assert [request.kind for request in tokens.requests] == ["basic"] * 4
    run(registry.address, FixedKeychain((identity,)), all_of_it)
    assert [request.kind for request in tokens.requests[4:]] == ["refresh_token"] * 4
    run(registry.address, FixedKeychain((bearer,)), one)
    assert len(tokens.requests) == 8


def test_a_deletion_asks_for_the_right_to_delete(
    docker_registry: Callable[..., DockerRegistry], token_server: Callable[..., TokenServer]
) -> None:
    tokens = token_server()
    registry = docker_registry(token=tokens)
    registry.push("team/app", "v1")
    digest = str(registry.tags("team/app")["v1"])

    async def test(client: Client, _: ChallengeFlow) -> None:
        await client.request("GET", "team/app/tags/list")
        await client.request("DELETE", f"team/app/manifests/{digest}", expect=(202,))

    run(registry.address, FixedKeychain((TESTER,)), test)
    assert tokens.requests[-1].scopes == ("repository:team/app:delete",)


def test_a_token_endpoint_down_for_a_moment(
    docker_registry: Callable[..., DockerRegistry], token_server: Callable[..., TokenServer]
) -> None:
    tokens = token_server()
    registry = docker_registry(token=tokens)
    registry.push("app", "v1")
    tokens.policy.fail = 2

    async def test(client: Client, _: ChallengeFlow) -> None:
        assert (await client.request("GET", "app/tags/list")).status == 200

    run(registry.address, FixedKeychain((TESTER,)), test)


# ── a server with faults ──


def test_a_hundred_requests_over_sixteen_connections_fetch_one_token() -> None:
    with serve() as server:
        server.hold.clear()

        async def test(client: Client, flow: ChallengeFlow) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(client.request, "GET", f"app/manifests/v{number}")
                await trio.to_thread.run_sync(server.asked.acquire)
                await wait_all_tasks_blocked(0.1)
                server.hold.set()
            assert flow.token_requests == 1

        run(server.address, FixedKeychain((TESTER,)), test)
        assert server.token_requests == ["repository:app:pull"]
        assert 1 <= server.statuses.count(401) <= POLICY.max_requests
        assert server.statuses.count(200) == 100


def test_those_who_wait_hold_no_connection_that_fetching_the_token_needs() -> None:
    with serve() as server:

        async def test() -> None:
            flow = ChallengeFlow(connection_to(server.address), FixedKeychain((TESTER,)))
            limits = httpx.Limits(max_connections=2)
            async with httpx.AsyncClient(auth=flow, limits=limits, trust_env=False) as client:
                with trio.fail_after(10):
                    async with trio.open_nursery() as nursery:
                        for number in range(10):
                            nursery.start_soon(
                                client.get, f"http://{server.address}/v2/app/manifests/v{number}"
                            )

        trio.run(test)
        assert len(server.token_requests) == 1


def test_a_reader_that_goes_away_leaves_the_token_to_the_others() -> None:
    with serve() as server:
        server.hold.clear()

        async def test(client: Client, _: ChallengeFlow) -> None:
            async with trio.open_nursery() as nursery:
                first = trio.CancelScope()

                async def leaving() -> None:
                    with first:
                        await client.request("GET", "app/manifests/v1")

                nursery.start_soon(leaving)
                await trio.to_thread.run_sync(server.asked.acquire)
                nursery.start_soon(client.request, "GET", "app/manifests/v2")
                await wait_all_tasks_blocked(0.1)
                first.cancel()
                await trio.to_thread.run_sync(server.asked.acquire)
                server.hold.set()

        run(server.address, FixedKeychain((TESTER,)), test)
        assert len(server.token_requests) == 2
        assert server.statuses.count(200) == 1


def test_a_401_of_any_size_is_not_read_to_its_end() -> None:
    with serve() as server:
        server.refusal = b"x" * 50_000_000

        async def test(client: Client, _: ChallengeFlow) -> None:
            assert (await client.request("GET", "app/manifests/v1")).body == b"content"
            assert client.counters()["bytes"] < 1_000_000

        run(server.address, FixedKeychain((TESTER,)), test)


def test_a_token_reply_of_any_size_is_not_read_to_its_end() -> None:
    with serve() as server:
        server.token_body = b'{"token": "' + b"x" * 50_000_000

        async def test(client: Client, _: ChallengeFlow) -> None:
            with pytest.raises(BadReply, match="more than 64 KiB"):
                await client.request("GET", "app/manifests/v1")
            assert client.counters()["bytes"] < 1_000_000

        run(server.address, FixedKeychain((TESTER,)), test)


@pytest.mark.parametrize("count", [1, 20])
def test_a_token_endpoint_that_is_down_is_an_error_for_everyone_and_no_hang(count: int) -> None:
    with serve() as server:
        with serve() as gone:
            server.realm = f"http://{gone.address}/token"

        async def one(client: Client) -> None:
            with pytest.raises(ConnectionFailed, match=gone.address):
                await client.request("GET", "app/manifests/v1")

        async def test(client: Client, _: ChallengeFlow) -> None:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    for _n in range(count):
                        nursery.start_soon(one, client)

        run(server.address, FixedKeychain((TESTER,)), test)


def test_a_realm_on_a_link_local_address_is_refused() -> None:
    with serve() as server:
        server.realm = "http://169.254.169.254/latest/token"

        async def test(client: Client, _: ChallengeFlow) -> None:
            with pytest.raises(UnsafeTarget, match=r"169\.254"):
                await client.request("GET", "app/manifests/v1")

        run(server.address, FixedKeychain((TESTER,)), test)


def test_a_password_stands_in_no_error() -> None:
    with serve() as server:
        server.token_body = b'{"token": "a b"}'

        async def test(client: Client, _: ChallengeFlow) -> None:
            with pytest.raises(BadReply) as caught:
                await client.request("GET", "app/manifests/v1")
            texts: list[str] = []
            error: BaseException | None = caught.value
            while error is not None:
                texts.append(f"{error!r} {error!s} {error.__dict__}")
                error = error.__cause__ or error.__context__
            assert TESTER.secret not in " ".join(texts)

        run(server.address, FixedKeychain((TESTER,)), test)
