"""Which addresses a host may be reached at, and how it is reached."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address
from typing import Any

import httpcore
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from regfs.errors import ConnectionFailed, UnknownHost, UnsafeTarget
from regfs.registry.network import Backend, Guard, Zone, may_lead, zone_of
from regfs.registry.records import READ_SIZE


class Names(trio.abc.HostnameResolver):
    """Names of the test's own; anything else does not exist."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.asked: list[str] = []

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        name = (host or b"").decode()
        self.asked.append(name)
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, type, 6, "", (address, port))
            for address in self.names[name]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def reached(guard: Guard, host: str, names: Names) -> bool:
    trio.socket.set_custom_hostname_resolver(names)
    try:
        await guard.addresses(host, 443)
    except UnsafeTarget:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("8.8.8.8", Zone.PUBLIC),
        ("2606:4700::1111", Zone.PUBLIC),
        ("10.0.0.1", Zone.PRIVATE),
        ("172.31.255.255", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE),
        ("fd00::1", Zone.PRIVATE),
        ("224.0.0.1", Zone.PRIVATE),
        ("255.255.255.255", Zone.PRIVATE),
        ("127.0.0.1", Zone.LOOPBACK),
        ("127.8.8.8", Zone.LOOPBACK),
        ("::1", Zone.LOOPBACK),
        ("0.0.0.0", Zone.LOOPBACK),
        ("::", Zone.LOOPBACK),
        ("169.254.169.254", Zone.LINK_LOCAL),
        ("fe80::1%eth0", Zone.LINK_LOCAL),
        ("::ffff:127.0.0.1", Zone.LOOPBACK),
        ("::ffff:169.254.169.254", Zone.LINK_LOCAL),
        ("64:ff9b::7f00:1", Zone.LOOPBACK),
        ("64:ff9b::a9fe:a9fe", Zone.LINK_LOCAL),
        ("2002:7f00:1::", Zone.LOOPBACK),
        ("::127.0.0.1", Zone.LOOPBACK),
    ],
)
def test_the_zone_of_an_address(address: str, zone: Zone) -> None:
    assert zone_of(address) is zone


@given(st.ip_addresses(v=4))
def test_an_address_hidden_in_ipv6_is_judged_as_itself(address: IPv4Address) -> None:
    for spelling in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        str(ip_address((0x2002 << 112) | (int(address) << 80))),
    ):
        assert zone_of(spelling) is zone_of(str(address))


@given(st.sampled_from(Zone), st.sampled_from(Zone))
def test_nothing_leads_closer_than_the_registry_is(own: Zone, other: Zone) -> None:
    if may_lead(own, other):
        assert other <= own
    assert may_lead(own, Zone.PUBLIC)
    assert may_lead(own, own)


def test_a_public_registry_leads_to_no_private_address() -> None:
    names = Names(
        r_example=["8.8.8.8"],
        cdn_example=["1.1.1.1"],
        nas_example=["192.168.0.2"],
        self_example=["127.0.0.1"],
        meta_example=["169.254.169.254"],
        both_example=["1.1.1.1", "10.0.0.1"],
    )

    async def main() -> list[bool]:
        guard = Guard("r.example")
        hosts = ("r", "cdn", "nas", "self", "meta", "both")
        return [await reached(guard, f"{host}.example", names) for host in hosts]

    assert trio.run(main) == [True, True, False, False, False, False]


def test_a_private_registry_leads_to_its_neighbours_only() -> None:
    names = Names(
        r_corp=["10.0.0.1"], auth_corp=["10.0.0.2"], self_corp=["127.0.0.1"], meta_corp=["169.254.169.254"]
    )

    async def main() -> list[bool]:
        guard = Guard("r.corp")
        return [await reached(guard, f"{host}.corp", names) for host in ("r", "auth", "self", "meta")]

    assert trio.run(main) == [True, True, False, False]


def test_a_registry_that_is_also_public_counts_as_public() -> None:
    names = Names(r_example=["10.0.0.1", "8.8.8.8"], nas_example=["10.0.0.2"])

    async def main() -> bool:
        return await reached(Guard("r.example"), "nas.example", names)

    assert trio.run(main) is False


def test_the_config_may_allow_a_host() -> None:
    names = Names(r_example=["8.8.8.8"], nas_example=["192.168.0.2"])

    async def main() -> list[bool]:
        lists = (["NAS.example."], ["nas.example:443"], ["nas.example:444"], ["example"])
        return [await reached(Guard("r.example", allowed), "nas.example", names) for allowed in lists]

    assert trio.run(main) == [True, True, False, False]


def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    """A name that resolves to something else a moment later is not asked again."""
    names = Names(r_example=["127.0.0.1"])

    async def main() -> int:
        trio.socket.set_custom_hostname_resolver(names)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        stream = await Backend(Guard("r.example")).connect_tcp("r.example", port)
        await stream.aclose()
        await listeners[0].aclose()
        return len(names.asked)

    assert trio.run(main) == 1


def test_a_host_without_an_address_is_unknown() -> None:
    async def main() -> None:
        trio.socket.set_custom_hostname_resolver(Names())
        with pytest.raises(UnknownHost, match=r"typo\.example"):
            await Backend(Guard("typo.example")).connect_tcp("typo.example", 443)

    trio.run(main)


def test_the_next_address_is_tried_when_one_refuses() -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.2")
        port = listeners[0].socket.getsockname()[1]
        trio.socket.set_custom_hostname_resolver(Names(localhost=["127.0.0.1", "127.0.0.2"]))
        stream = await Backend(Guard("localhost")).connect_tcp("localhost", port)
        assert stream.get_extra_info("socket").getpeername()[0] == "127.0.0.2"
        await stream.aclose()
        await listeners[0].aclose()

    trio.run(main)


def test_a_refused_connection_says_so_and_that_nothing_was_sent() -> None:
    async def main() -> ConnectionFailed:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        with pytest.raises(ConnectionFailed, match="refused") as caught:
            await Backend(Guard("127.0.0.1")).connect_tcp("127.0.0.1", port)
        return caught.value

    assert trio.run(main).sent is False


def test_a_proxied_host_is_judged_by_what_is_known_here() -> None:
    names = Names(r_example=["8.8.8.8"], nas_example=["10.0.0.1"])

    async def main() -> None:
        trio.socket.set_custom_hostname_resolver(names)
        guard = Guard("r.example")
        await guard.check_proxied("unknown.example", 443)
        with pytest.raises(UnsafeTarget):
            await guard.check_proxied("nas.example", 443)

    trio.run(main)


def test_a_large_body_is_read_in_large_pieces() -> None:
    async def main() -> tuple[int, int]:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]

        async def serve(stream: trio.SocketStream) -> None:
            await stream.send_all(b"x" * 8 * READ_SIZE)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            stream = await Backend(Guard("127.0.0.1")).connect_tcp("127.0.0.1", port)
            largest = taken = 0
            while data := await stream.read(64 * 1024):
                largest, taken = max(largest, len(data)), taken + len(data)
                await trio.sleep(0.002)  # let the sender fill the socket's buffer
            nursery.cancel_scope.cancel()
        await stream.aclose()
        return taken, largest

    taken, largest = trio.run(main)
    assert taken == 8 * READ_SIZE
    assert 64 * 1024 < largest <= READ_SIZE


def test_reads_and_writes_keep_to_a_limit_that_httpcore_gives() -> None:
    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        stream = await Backend(None).connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(10, timeout=0.01)
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(b"x" * 50_000_000, timeout=0.05)
        await stream.aclose()
        with pytest.raises(httpcore.ReadError):
            await stream.read(10)
        assert stream.get_extra_info("is_readable") is True
        await listeners[0].aclose()

    trio.run(main)
