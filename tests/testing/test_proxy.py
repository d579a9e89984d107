"""The delay proxy makes a round trip cost what it says, and counts what passes."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.testing.behaviour import Behaviour, Framing
from regfs.testing.fake import FakeRegistry
from regfs.testing.proxy import DelayProxy
from regfs.testing.wire import MessageReader
from tests.support.clients import HEADERS
from tests.support.processes import wait_until


def client_of(proxy: DelayProxy, registry: FakeRegistry) -> httpx.Client:
    headers = {**HEADERS, "Host": registry.authority}
    return httpx.Client(base_url=f"http://{proxy.address}/v2/", headers=headers, trust_env=False, timeout=20)


def test_a_round_trip_costs_the_delay_and_little_more() -> None:
    with (
        FakeRegistry() as registry,
        DelayProxy(registry.authority, 0.02) as proxy,
        client_of(proxy, registry) as far,
        httpx.Client(base_url=registry.url, headers=HEADERS, trust_env=False) as near,
    ):
        registry.push("a", "v1")
        times: dict[str, list[float]] = {"far": [], "near": []}
        for _ in range(15):
            for name, client in (("far", far), ("near", near)):
                start = time.perf_counter()
                assert client.get("a/manifests/v1").status_code == 200
                times[name].append(time.perf_counter() - start)
        added = statistics.median(times["far"]) - statistics.median(times["near"])
        assert min(times["far"]) >= 0.02
        assert added < 0.03
        assert [(r.kind, r.status) for r in proxy.requests] == [("manifest", 200)] * 15
        assert (proxy.connections, proxy.count("manifest", status=200), proxy.count("tags")) == (1, 15, 0)


def test_what_is_pipelined_is_delayed_once() -> None:
    with (
        FakeRegistry() as registry,
        DelayProxy(registry.authority, 0.1) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as line,
    ):
        one = f"GET /v2/ HTTP/1.1\r\nHost: {registry.authority}\r\nUser-Agent: k\r\nAccept-Encoding: identity\r\n\r\n"
        start = time.perf_counter()
        for _ in range(10):
            line.sendall(one.encode())
            time.sleep(0.002)
        received = b""
        while received.count(b"HTTP/1.1 200") < 10:
            received += line.recv(65536)
        assert 0.1 <= time.perf_counter() - start < 0.3
        wait_until(lambda: proxy.count("ping", status=200) == 10, "all are counted")


def test_dropped_connections_fail_and_new_ones_are_served() -> None:
    with FakeRegistry() as registry, DelayProxy(registry.authority, 0.0) as proxy:
        gate = registry.stall("tags")
        with client_of(proxy, registry) as client, ThreadPoolExecutor(1) as pool:
            held = pool.submit(client.get, "a/tags/list")
            wait_until(lambda: gate.waiting == 1, "the request is held")
            proxy.drop()
            assert isinstance(held.exception(10), httpx.TransportError)
            gate.open()
            assert client.get("").status_code == 200


def test_a_frozen_network_passes_nothing_until_it_thaws() -> None:
    with (
        FakeRegistry() as registry,
        DelayProxy(registry.authority, 0.0) as proxy,
        client_of(proxy, registry) as client,
    ):
        gate = proxy.freeze()
        with pytest.raises(httpx.ReadTimeout):
            client.get("", timeout=0.2)
        assert registry.count("ping") == 0
        threading.Timer(0.05, gate.open).start()
        assert client.get("").status_code == 200


def test_a_stopped_proxy_refuses_and_comes_back_on_its_port() -> None:
    with (
        FakeRegistry() as registry,
        DelayProxy(registry.authority, 0.0) as proxy,
        client_of(proxy, registry) as client,
    ):
        assert client.get("").status_code == 200
        address = proxy.address
        proxy.stop()
        with pytest.raises(httpx.TransportError):
            client.get("")
        proxy.start()
        assert proxy.address == address
        assert client.get("").status_code == 200


@pytest.mark.parametrize("framing", Framing)
def test_every_framing_passes_and_is_counted(framing: Framing) -> None:
    with (
        FakeRegistry(Behaviour(framing=framing)) as registry,
        DelayProxy(registry.authority, 0.0) as proxy,
        client_of(proxy, registry) as client,
    ):
        image = registry.push("a", "v1")
        assert client.head("a/manifests/v1").status_code == 200
        assert client.get("a/manifests/v1").content == image.manifest.raw
        assert client.get("a/manifests/absent").status_code == 404
        found = [(passed.method, passed.status) for passed in proxy.requests]
        assert found == [("HEAD", 200), ("GET", 200), ("GET", 404)]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(0, 3))
def test_messages_are_found_however_the_bytes_are_cut(cuts: list[int], extra: int) -> None:
    stream = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/"
        b"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\na\r\n0123456789\r\n0\r\n\r\n"
    ) + b"HTTP/1.1 204 No Content\r\n\r\n" * extra
    reader = MessageReader(lambda: False)
    found = []
    for size in [*cuts, len(stream)]:
        found += [head.second for head in reader.feed(stream[:size])]
        stream = stream[size:]
    assert found == ["200", "404", "200", *["204"] * extra]
