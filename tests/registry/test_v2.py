"""What a Source of a V2 registry may be relied on for, against registries that are odd, poor or hostile."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DigestMismatch,
    Forbidden,
    ListingRefused,
    NotARegistry,
    NotFound,
    NotSignedIn,
    PagingLoop,
    RegfsError,
    ServerFailed,
    TooLarge,
    UnsafeTarget,
)
from regfs.manifest import ACCEPT, OCI_INDEX, OCI_MANIFEST, Descriptor
from regfs.ports import (
    Counts,
    DatesTags,
    DeletesTags,
    HttpPolicy,
    ListsReferrers,
    ListsRepositories,
    Metered,
    RawManifest,
    Recovers,
    ResolvesTags,
    Source,
)
from regfs.reference import TagOrDigest
from regfs.registry.client import Client
from regfs.registry.journal import Journal
from regfs.registry.v2 import V2Source
from regfs.testing.behaviour import Behaviour, DigestHeader, Framing, Order, Paging
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_image, make_index
from tests.registry.http_server import Asked, HttpServer, Raw, reply

T = TypeVar("T")

EXAMPLE = Digest.of(b"example")


def ask(address: str, body: Callable[[V2Source], Awaitable[T]]) -> T:
    """Run ``body`` with a Source of the registry at ``address``."""

    async def main() -> T:
        policy = HttpPolicy("regfs-test/1", call_deadline=5.0, stall_deadline=5.0, retries=0)
        client = Client(Connection("r", f"http://{address}"), policy, None)
        source = V2Source(address, client, Journal(Path("/nonexistent/never-written")))
        try:
            with trio.fail_after(30):
                return await body(source)
        finally:
            await source.aclose()

    return trio.run(main)


async def all_tags(source: V2Source, repository: str) -> list[str]:
    return [name async for page in source.tags(repository) for name in page.names]


def tags(address: str, repository: str = "team/app") -> list[str]:
    return ask(address, lambda source: all_tags(source, repository))


def repositories(address: str) -> list[str]:
    async def body(source: V2Source) -> list[str]:
        return [name async for page in source.repositories() for name in page]

    return ask(address, body)


def manifest(address: str, reference: TagOrDigest = "v1", repository: str = "team/app") -> RawManifest:
    return ask(address, lambda source: source.manifest(repository, reference))


def resolve(address: str, tag: str = "v1") -> Descriptor:
    return ask(address, lambda source: source.resolve("team/app", tag))


def blob(
    address: str, descriptor: Descriptor, start: int = 0, end: int | None = None, repository: str = "team/app"
) -> bytes:
    async def body(source: V2Source) -> bytes:
        async with source.blob(repository, descriptor, start, end) as pieces:
            return b"".join([piece async for piece in pieces])

    return ask(address, body)


# ── is it a registry ─────────────────────────────────────────────────────────────────────────────


def test_a_registry_that_answers_is_one() -> None:
    with FakeRegistry() as registry:
        ask(registry.address, lambda source: source.check())
        assert registry.count("ping") == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(404, b"not here"), NotARegistry),
        (reply(200, b"<html>welcome</html>", content_type="text/html"), NotARegistry),
        (reply(401, b"<html>", content_type="text/html"), NotARegistry),
        (reply(401, b"", www_authenticate="Unknown x=y"), NotSignedIn),
        (reply(403, b""), Forbidden),
        (reply(503, b""), ServerFailed),
    ],
)
def test_what_something_else_or_a_refusal_means(answer: Raw, error: type[RegfsError]) -> None:
    with HttpServer(lambda _: answer) as server, pytest.raises(error):
        ask(server.address, lambda source: source.check())


# ── tags ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("paging", [Paging.RELATIVE, Paging.ABSOLUTE, Paging.CUT, Paging.WHOLE])
def test_all_tags_are_listed_however_pages_are_cut_and_framed(paging: Paging, framing: Framing) -> None:
    names = [f"v{number:04}" for number in range(2345)]
    with FakeRegistry(Behaviour(tag_paging=paging, framing=framing, page_size=1000)) as registry:
        registry.push("team/app", names)
        assert tags(registry.address) == names


def test_exactly_one_full_page_is_all_of_it() -> None:
    names = [f"v{number:04}" for number in range(1000)]
    for paging in (Paging.CUT, Paging.WHOLE, Paging.RELATIVE):
        with FakeRegistry(Behaviour(tag_paging=paging, page_size=1000)) as registry:
            registry.push("team/app", names)
            assert tags(registry.address) == names


def test_a_page_is_given_as_soon_as_it_is_there() -> None:
    async def body(source: V2Source) -> Sequence[str]:
        async for page in source.tags("team/app"):
            return page.names
        return ()

    with FakeRegistry(Behaviour(page_size=10)) as registry:
        registry.push("team/app", [f"v{number:03}" for number in range(100)])
        assert len(ask(registry.address, body)) == 10
        assert registry.count("tags") == 1


def test_an_emptied_repository_is_empty_and_an_absent_one_is_not_there() -> None:
    with FakeRegistry() as registry:
        registry.push("team/app")
        assert tags(registry.address) == []
        with pytest.raises(NotFound):
            tags(registry.address, "team/absent")


def test_null_empty_and_repeated_names_are_left_out() -> None:
    body = json.dumps({"name": "team/app", "tags": ["v1", None, "", "v1", "v2"]}).encode()
    with HttpServer(lambda _: reply(200, body)) as server:
        assert tags(server.address) == ["v1", "v2"]


def test_a_registry_that_refuses_the_pages_size_is_asked_without_it() -> None:
    def handler(asked: Asked) -> Raw:
        if "n=" in asked.target:
            return reply(400, b'{"errors":[{"code":"PAGINATION_NUMBER_INVALID"}]}')
        return reply(200, b'{"name":"team/app","tags":["v1"]}')

    with HttpServer(handler) as server:
        assert tags(server.address) == ["v1"]
        assert len(server.asked) == 2
    with HttpServer(lambda _: reply(400, b"never")) as server, pytest.raises(BadReply, match="never"):
        tags(server.address)


def test_a_400_that_means_no_such_repository_is_not_found() -> None:
    answer = reply(400, b'{"errors":[{"code":"NAME_UNKNOWN","message":"gone"}]}')
    with HttpServer(lambda _: answer) as server:
        with pytest.raises(NotFound, match="gone"):
            tags(server.address)
        assert len(server.asked) == 1


def test_a_page_that_no_link_led_to_may_be_missing() -> None:
    names = [f"v{number:04}" for number in range(1000)]

    def handler(asked: Asked) -> Raw:
        if "last=" in asked.target:
            return reply(404, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
        return reply(200, json.dumps({"tags": names}).encode())

    with HttpServer(handler) as server:
        assert tags(server.address) == names


@pytest.mark.parametrize(
    ("paging", "error"),
    [
        (Paging.LOOP, PagingLoop),
        (Paging.EMPTY, PagingLoop),
        (Paging.FOREIGN, UnsafeTarget),
    ],
)
def test_pages_that_lead_nowhere_end_in_an_error_after_the_names_that_came(
    paging: Paging, error: type[RegfsError]
) -> None:
    got: list[str] = []

    async def body(source: V2Source) -> None:
        async for page in source.tags("team/app"):
            got.extend(page.names)

    with FakeRegistry(Behaviour(tag_paging=paging, page_size=10)) as registry:
        registry.push("team/app", [f"v{number:03}" for number in range(30)])
        with pytest.raises(error):
            ask(registry.address, body)
        assert registry.foreign == []
    assert "v000" in got


def test_endless_pages_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regfs.registry.paging.MAX_NAMES", 500)
    with FakeRegistry(Behaviour(tag_paging=Paging.ENDLESS)) as registry:
        registry.push("team/app", "v1")
        with pytest.raises(PagingLoop):
            tags(registry.address)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"tags":[1]}', b'{"tags":' + b"[" * 100_000, b'{"errors":[]}', b'{"tags":["v1"'],
)
def test_a_listing_that_is_none_is_an_error_and_never_an_empty_one(body: bytes) -> None:
    with HttpServer(lambda _: reply(200, body)) as server, pytest.raises(BadReply):
        tags(server.address)


def test_a_listing_without_any_framing_is_read_to_its_end() -> None:
    answer = Raw(b'HTTP/1.1 200 OK\r\n\r\n{"tags":["v1","v2"]}', then="close")
    with HttpServer(lambda _: answer) as server:
        assert tags(server.address) == ["v1", "v2"]


def test_a_listing_over_32_mib_is_too_large() -> None:
    answer = Raw(f"HTTP/1.1 200 OK\r\nContent-Length: {33 << 20}\r\n\r\n".encode(), then="close")
    with HttpServer(lambda _: answer) as server, pytest.raises(TooLarge):
        tags(server.address)


def test_a_hundred_thousand_tags_in_one_page_are_listed() -> None:
    names = [f"v{number:06}" for number in range(100_000)]
    body = json.dumps({"tags": names}).encode()
    with HttpServer(lambda _: reply(200, body)) as server:
        assert tags(server.address) == names


# ── repositories ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("paging", [Paging.RELATIVE, Paging.ABSOLUTE, Paging.CUT, Paging.WHOLE])
@pytest.mark.parametrize("prefix", ["", "/hub/docker"])
def test_all_repositories_are_listed(paging: Paging, prefix: str) -> None:
    names = [f"team/app{number:04}" for number in range(1200)]
    with FakeRegistry(Behaviour(catalog_paging=paging, page_size=1000, prefix=prefix)) as registry:
        for name in names:
            registry.push(name, "v1", make_image("one"))
        assert repositories(registry.address) == names


def test_a_catalog_in_no_order_without_links_gives_each_name_once() -> None:
    behaviour = Behaviour(catalog_paging=Paging.CUT, page_size=1000, order=Order.RANDOM)
    with FakeRegistry(behaviour) as registry:
        for number in range(500):
            registry.push(f"r{number}", "v1", make_image("one"))
        found = repositories(registry.address)
        assert len(found) == len(set(found)) == 500


def test_a_catalog_with_a_smaller_limit_is_asked_without_a_size() -> None:
    with FakeRegistry(Behaviour(catalog_limit=5, page_size=5)) as registry:
        for number in range(12):
            registry.push(f"r{number:02}", "v1", make_image("one"))
        assert repositories(registry.address) == [f"r{number:02}" for number in range(12)]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_catalog_that_is_refused_says_so(status: int) -> None:
    with FakeRegistry(Behaviour(catalog_status=status)) as registry:
        registry.push("team/app", "v1")
        with pytest.raises(ListingRefused):
            repositories(registry.address)


@pytest.mark.parametrize("status", [400, 501])
def test_a_catalog_that_is_unsupported_is_refused(status: int) -> None:
    answer = reply(status, b'{"errors":[{"code":"UNSUPPORTED","message":"no catalog here"}]}')
    with HttpServer(lambda _: answer) as server, pytest.raises(ListingRefused, match="no catalog here"):
        repositories(server.address)


def test_a_catalog_that_fails_is_no_refusal() -> None:
    with FakeRegistry() as registry:
        registry.fail(500, "catalog")
        with pytest.raises(ServerFailed):
            repositories(registry.address)


# ── manifests ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("framing", list(Framing))
def test_a_manifest_is_given_byte_for_byte(framing: Framing) -> None:
    index = make_index([make_image("a")])
    with FakeRegistry(Behaviour(framing=framing)) as registry:
        registry.push("team/app", "v1", index)
        for reference in ("v1", index.digest):
            found = manifest(registry.address, reference)
            assert found == RawManifest(index.manifest.raw, OCI_INDEX, index.digest)
        assert all(record.headers["accept"] == ACCEPT for record in registry.manifest_requests())


def test_a_digest_that_is_not_claimed_or_makes_no_sense_is_none() -> None:
    with FakeRegistry(Behaviour(digest_header=DigestHeader.ABSENT)) as registry:
        registry.push("team/app", "v1")
        assert manifest(registry.address).claimed is None
    for nonsense in ("", "sha256:", "md5:00", "sha256:zz", "x" * 1000):
        answer = reply(200, b"{}", docker_content_digest=nonsense)
        with HttpServer(lambda _, answer=answer: answer) as server:  # type: ignore[misc]
            assert manifest(server.address).claimed is None


def test_the_type_is_given_without_its_parameters() -> None:
    answer = reply(200, b"{}", content_type=f"{OCI_MANIFEST}; charset=utf-8")
    with HttpServer(lambda _: answer) as server:
        assert manifest(server.address).media_type == OCI_MANIFEST


def test_a_manifest_of_100_mib_is_too_large() -> None:
    with FakeRegistry() as registry:
        registry.plant_huge("team/app", "v1")
        with pytest.raises(TooLarge):
            manifest(registry.address)


@pytest.mark.parametrize("reference", ["v9", Digest.of(b"absent")])
def test_an_absent_manifest_is_not_found(reference: TagOrDigest) -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with pytest.raises(NotFound):
            manifest(registry.address, reference)


@pytest.mark.parametrize(
    ("repository", "tag"),
    [
        ("", "v1"),
        ("Team/App", "v1"),
        ("../v2", "v1"),
        ("team//app", "v1"),
        ("team/app?x", "v1"),
        ("team/app%2f", "v1"),
        ("a" * 256, "v1"),
        ("team/app", ""),
        ("team/app", ".."),
        ("team/app", "v1/x"),
        ("team/app", "v1?x"),
        ("team/app", "sha256:0"),
        ("team/app", "v" * 129),
    ],
)
def test_a_name_outside_the_grammar_is_not_found_without_a_request(repository: str, tag: str) -> None:
    descriptor = Descriptor("", EXAMPLE, 7)
    with FakeRegistry() as registry:
        with pytest.raises(NotFound):
            manifest(registry.address, tag, repository)
        with pytest.raises(NotFound):
            ask(registry.address, lambda source: source.resolve(repository, tag))
        if repository != "team/app":
            with pytest.raises(NotFound):
                tags(registry.address, repository)
            with pytest.raises(NotFound):
                blob(registry.address, descriptor, repository=repository)
        assert registry.requests == []


# ── where a tag leads ────────────────────────────────────────────────────────────────────────────


def test_a_tag_resolves_by_one_head() -> None:
    with FakeRegistry() as registry:
        image = registry.push("team/app", "v1")
        assert resolve(registry.address) == image.manifest.descriptor
        assert [record.method for record in registry.requests] == ["HEAD"]


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(head=False),
        Behaviour(digest_header=DigestHeader.ABSENT),
        Behaviour(content_type=""),
        Behaviour(content_type="application/json"),
        Behaviour(framing=Framing.CHUNKED),
    ],
)
def test_where_head_does_not_tell_the_manifest_itself_does(behaviour: Behaviour) -> None:
    with FakeRegistry(behaviour) as registry:
        image = registry.push("team/app", "v1")
        assert resolve(registry.address) == image.manifest.descriptor


def test_a_large_manifest_without_a_digest_is_hashed_all_the_same() -> None:
    raw = json.dumps({"schemaVersion": 2, "layers": [], "annotations": {"x": "y" * 3_000_000}}).encode()
    with HttpServer(lambda asked: reply(405 if asked.method == "HEAD" else 200, raw)) as server:
        assert resolve(server.address) == Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw))


def test_an_absent_tag_resolves_to_not_found() -> None:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with pytest.raises(NotFound):
            resolve(registry.address, "v9")


def test_a_lie_about_a_digest_is_a_mismatch() -> None:
    def handler(asked: Asked) -> Raw:
        if asked.method == "HEAD":
            return reply(405)
        return reply(200, b'{"layers":[]}', docker_content_digest=str(EXAMPLE))

    with HttpServer(handler) as server, pytest.raises(DigestMismatch):
        resolve(server.address)


# ── blobs ────────────────────────────────────────────────────────────────────────────────────────

DATA = bytes(range(256)) * 1000
WHOLE = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


def serve_blob(_: Asked) -> Raw:
    """A server that honours no Range."""
    return reply(200, DATA)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 1), (5, 9), (0, 10**9), (100, 10**9), (65_000, 66_000), (-5, 3), (20, 10), (10**9, None)],
)
def test_any_span_of_a_blob_is_given_exactly(
    start: int, end: int | None, framing: Framing, ranges: bool
) -> None:
    image = make_image("x", files={"data": DATA})
    layer = image.layers[0]
    with FakeRegistry(Behaviour(ranges=ranges, framing=framing)) as registry:
        registry.push("team/app", "v1", image)
        expected = layer.raw[max(start, 0) : end]
        assert blob(registry.address, layer.descriptor, start, end) == expected


def test_a_whole_blob_is_asked_for_without_a_range_and_a_part_with_a_closed_one() -> None:
    with HttpServer(serve_blob) as server:
        assert blob(server.address, WHOLE) == DATA
        assert blob(server.address, WHOLE, 10) == DATA[10:]
        assert blob(server.address, WHOLE, 5, 9) == DATA[5:9]
        ranges = [asked.headers.get("range") for asked in server.asked]
        assert ranges == [None, f"bytes=10-{len(DATA) - 1}", "bytes=5-8"]


def test_nothing_is_asked_for_no_bytes() -> None:
    with HttpServer(serve_blob) as server:
        assert blob(server.address, Descriptor("", EXAMPLE, 0)) == b""
        assert blob(server.address, WHOLE, 7, 7) == b""
        assert server.asked == []


@pytest.mark.parametrize(
    ("content_range", "body"),
    [
        ("", b"4567"),
        ("bytes 4-7/256000", b"4567"),
        ("bytes 5-9/256000", b"45678"),
        ("bytes 5-7/256000", b"456"),
        ("bytes 5-8/99", b"4567"),
        ("items 5-8/256000", b"4567"),
        ("bytes */256000", b""),
    ],
)
def test_a_partial_reply_that_is_not_what_was_asked_for_is_refused(content_range: str, body: bytes) -> None:
    headers = {"Content-Range": content_range} if content_range else {}
    with HttpServer(lambda _: reply(206, body, headers)) as server, pytest.raises(BadReply):
        blob(server.address, WHOLE, 5, 9)


def test_several_ranges_in_one_reply_are_refused() -> None:
    headers = {"Content-Type": "multipart/byteranges; boundary=x"}
    with HttpServer(lambda _: reply(206, b"--x\r\n", headers)) as server, pytest.raises(BadReply):
        blob(server.address, WHOLE, 5, 9)


def test_a_partial_reply_of_unknown_total_is_taken() -> None:
    answer = reply(206, DATA[5:9], {"Content-Range": "bytes 5-8/*"})
    with HttpServer(lambda _: answer) as server:
        assert blob(server.address, WHOLE, 5, 9) == DATA[5:9]


def test_a_partial_reply_where_none_was_asked_for_is_refused() -> None:
    answer = reply(206, DATA[:10], {"Content-Range": "bytes 0-9/256000"})
    with HttpServer(lambda _: answer) as server, pytest.raises(BadReply):
        blob(server.address, WHOLE)


@pytest.mark.parametrize("wrong", [DATA + b"x", DATA[:-1], b""])
@pytest.mark.parametrize("announced", [True, False])
def test_a_blob_of_another_size_than_its_descriptors_is_a_mismatch(wrong: bytes, announced: bool) -> None:
    got: list[bytes] = []

    async def body(source: V2Source) -> None:
        async with source.blob("team/app", WHOLE) as pieces:
            async for piece in pieces:
                got.append(piece)

    unframed = Raw(b"HTTP/1.1 200 OK\r\n\r\n" + wrong, then="close")
    answer = reply(200, wrong) if announced else unframed
    with HttpServer(lambda _: answer) as server, pytest.raises(DigestMismatch):
        ask(server.address, body)
    assert b"".join(got) == (b"" if announced else wrong[: len(DATA)])


def test_a_blob_that_breaks_off_is_a_failed_connection() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
    broken = Raw(head + DATA[:100], then="close")
    with HttpServer(lambda _: broken) as server, pytest.raises(ConnectionFailed):
        blob(server.address, WHOLE)


def test_an_absent_blob_is_not_found_on_entering() -> None:
    async def body(source: V2Source) -> None:
        async with source.blob("team/app", Descriptor("", EXAMPLE, 7)):
            raise AssertionError("there is no such blob")

    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with pytest.raises(NotFound):
            ask(registry.address, body)


# ── what it can do ───────────────────────────────────────────────────────────────────────────────


def test_capabilities_are_handed_out_by_their_class() -> None:
    async def body(source: V2Source) -> None:
        plain: Source = source
        for kind in (ListsRepositories, ListsReferrers, ResolvesTags, DeletesTags, Recovers, Counts):
            found = plain.capability(kind, "team/app")
            assert isinstance(found, kind)
        assert plain.capability(Metered) is None
        assert plain.capability(DatesTags) is None
        assert plain.name == source.name == "127.0.0.1:1"

    ask("127.0.0.1:1", body)


def test_requests_are_counted() -> None:
    async def body(source: V2Source) -> int:
        await source.manifest("team/app", "v1")
        return source.counters()["requests"]

    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        assert ask(registry.address, body) == 1
