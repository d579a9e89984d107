"""A folder of OCI layouts as a registry: what is shown of it, and what a deletion leaves."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import stat
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from regfs.connection import Connection
from regfs.digest import Digest
from regfs.errors import (
    BadReply,
    ConnectionFailed,
    DeadlineExceeded,
    DigestMismatch,
    Moved,
    NotARegistry,
    NotFound,
    Refused,
    RegfsError,
    TooLarge,
    Unsupported,
)
from regfs.manifest import Descriptor
from regfs.ports import (
    Counts,
    DeletesRepositories,
    DeletesTags,
    HttpPolicy,
    ListsRepositories,
    ResolvesTags,
    Tools,
)
from regfs.providers import oci, oci_layout
from regfs.providers.oci import OciLayoutProvider, OciLayoutSource
from regfs.testing.images import Pushable, make_image, make_index

T = TypeVar("T")
REF_NAME = "org.opencontainers.image.ref.name"
LAYER = make_image(files={"x": random.Random(1).randbytes(700_000)}).layers[0]


def lay(folder: Path, tags: Mapping[str, Pushable]) -> Path:
    """Write an image layout with those tags, as the specification describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for pushable in tags.values():
        for content in (*pushable.blobs, *pushable.manifests()):
            blob = folder / "blobs" / content.digest.algorithm / content.digest.hex
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content.raw)
    entries = [what.manifest.reference(annotations={REF_NAME: tag}) for tag, what in tags.items()]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["manifests"]
    return found


def write_entries(folder: Path, entries: list[Any]) -> None:
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))


def source(root: Path) -> OciLayoutSource:
    return OciLayoutSource(f"oci:{root}")


def tags(root: Path, repository: str) -> list[str]:
    async def gather() -> list[str]:
        return [name async for page in source(root).tags(repository) for name in page.names]

    return trio.run(gather)


def repositories(root: Path) -> list[str]:
    async def gather() -> list[str]:
        lists = source(root).capability(ListsRepositories)
        assert lists is not None
        return sorted([name async for page in lists.repositories() for name in page])

    return trio.run(gather)


def manifest(root: Path, repository: str, reference: str | Digest) -> bytes:
    return trio.run(source(root).manifest, repository, reference).raw


def delete(root: Path, repository: str, tag: str, seen: Digest | None = None) -> None:
    deletes = source(root).capability(DeletesTags)
    assert deletes is not None
    trio.run(deletes.delete_tag, repository, tag, seen)


def read_blob(
    root: Path, repository: str, descriptor: Descriptor, start: int = 0, end: int | None = None
) -> bytes:
    async def gather() -> bytes:
        async with source(root).blob(repository, descriptor, start, end) as parts:
            return b"".join([part async for part in parts])

    return trio.run(gather)


# ── what is shown ────────────────────────────────────────────────────────────────────────────────


def test_each_layout_is_a_repository_named_by_its_path(tmp_path: Path) -> None:
    image = make_image()
    lay(tmp_path / "alpine", {"v1": image})
    lay(tmp_path / "team" / "app", {"v1": image})
    lay(tmp_path / "team" / "app" / "nested", {"v1": image})
    (tmp_path / "team" / "other").mkdir()
    assert repositories(tmp_path) == ["alpine", "team/app", "team/app/nested"]


def test_blobs_of_a_layout_are_no_repositories_and_a_repository_may_be_called_blobs(tmp_path: Path) -> None:
    lay(tmp_path / "app", {"v1": make_image()})
    lay(tmp_path / "app" / "blobs" / "trap", {"v1": make_image()})
    lay(tmp_path / "blobs", {"v1": make_image()})
    assert repositories(tmp_path) == ["app", "blobs"]


def test_a_folder_that_is_a_layout_is_one_repository_of_its_own_name(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"v1": make_image()})
    assert repositories(folder) == ["app"]
    assert tags(folder, "app") == ["v1"]
    with pytest.raises(NotFound):
        tags(folder, "other")


def test_a_folder_whose_name_is_no_repositorys_gets_one_that_is(tmp_path: Path) -> None:
    folder = lay(tmp_path / "My Images!", {"v1": make_image()})
    assert repositories(folder) == ["my-images"]
    assert tags(folder, "my-images") == ["v1"]


def test_a_manifest_is_read_by_tag_and_by_digest_with_its_exact_bytes(tmp_path: Path) -> None:
    index = make_index([make_image("a"), make_image("b")])
    lay(tmp_path / "app", {"v1": index})
    found = trio.run(source(tmp_path).manifest, "app", "v1")
    assert (found.raw, found.media_type, found.claimed) == (
        index.manifest.raw,
        index.manifest.media_type,
        index.digest,
    )
    for child in index.manifests():
        assert manifest(tmp_path, "app", child.digest) == child.raw


def test_what_is_no_manifest_is_not_found_as_one(tmp_path: Path) -> None:
    image = make_image()
    lay(tmp_path / "app", {"v1": image})
    for digest in (image.config.digest, image.layers[0].digest, Digest.of(b"absent")):
        with pytest.raises(NotFound):
            manifest(tmp_path, "app", digest)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_range_of_a_blob_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("ranges")
    lay(root / "app", {})
    blob = root / "app" / "blobs" / "sha256" / LAYER.digest.hex
    blob.parent.mkdir(parents=True)
    blob.write_bytes(LAYER.raw)
    start = data.draw(st.integers(0, len(LAYER.raw)))
    end = data.draw(st.none() | st.integers(start, len(LAYER.raw)))
    assert read_blob(root, "app", LAYER.descriptor, start, end) == LAYER.raw[start:end]


def test_a_blob_that_is_absent_or_of_another_size_is_an_error_on_entering(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    with pytest.raises(NotFound):
        read_blob(tmp_path, "app", Descriptor("x", Digest.of(b"absent"), 6))
    (folder / "blobs" / "sha256" / image.config.digest.hex).write_bytes(b"{}")
    with pytest.raises(DigestMismatch):
        read_blob(tmp_path, "app", image.config.descriptor)


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("v1", "v1"),
        ("docker.io/library/alpine:3.19", "3.19"),
        ("localhost:5000/team/app:v1", "v1"),
        ("app:v1@sha256:" + "0" * 64, "v1"),
        ("docker.io/library/alpine", None),
        ("localhost:5000/app", None),
        ("app@sha256:" + "0" * 64, None),
        ("../../etc", None),
        ("", None),
        (".hidden", None),
        ("a b", None),
    ],
)
def test_a_reference_name_gives_its_tag_or_none(name: str, tag: str | None) -> None:
    assert oci_layout.tag_of(name) == tag


def test_of_two_entries_of_one_tag_the_first_is_shown_and_odd_ones_are_counted(tmp_path: Path) -> None:
    one, two = make_image("1"), make_image("2")
    folder = lay(tmp_path / "app", {"a": one, "b": two})
    write_entries(
        folder,
        [
            one.manifest.reference(annotations={REF_NAME: "v1"}),
            two.manifest.reference(annotations={REF_NAME: "host/app:v1"}),
            two.manifest.reference(annotations={REF_NAME: "no tag"}),
            two.manifest.reference(),
            {"digest": "md5:00", "size": 1},
            {"digest": str(one.digest), "size": -1},
            "text",
            None,
        ],
    )
    found = source(tmp_path)

    async def look() -> tuple[bytes, Mapping[str, int]]:
        raw = (await found.manifest("app", "v1")).raw
        counts = found.capability(Counts)
        assert counts is not None
        return raw, counts.counters()

    raw, counters = trio.run(look)
    assert raw == one.manifest.raw
    assert tags(tmp_path, "app") == ["v1"]
    assert counters["skipped_names"] == 5


def test_a_tag_resolves_without_reading_the_manifest(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    resolves = source(tmp_path).capability(ResolvesTags)
    assert resolves is not None
    assert trio.run(resolves.resolve, "app", "v1") == image.manifest.descriptor
    (folder / "blobs" / "sha256" / image.digest.hex).unlink()
    for tag in ("v1", "v2"):
        with pytest.raises(NotFound):
            trio.run(resolves.resolve, "app", tag)


@pytest.mark.parametrize(
    "repository", ["", ".", "..", "../x", "/etc", "app/..", "App", "app//x", "a\0b", "x" * 300]
)
def test_a_name_that_is_no_repositorys_is_not_found(tmp_path: Path, repository: str) -> None:
    lay(tmp_path / "app", {"v1": make_image()})
    with pytest.raises(NotFound):
        tags(tmp_path, repository)


def test_a_change_by_another_program_shows_at_the_next_call(tmp_path: Path) -> None:
    one, two = make_image("1"), make_image("2")
    folder = lay(tmp_path / "app", {"v1": one})
    os.utime(folder / "index.json", (1_000_000_000, 1_000_000_000))
    found = source(tmp_path)

    async def look() -> None:
        for pushed, at in ((one, 1_000_000_000), (two, 1_000_000_001)):
            lay(folder, {"v1": pushed})
            os.utime(folder / "index.json", (at, at))
            for _ in range(2):
                assert (await found.manifest("app", "v1")).raw == pushed.manifest.raw

    trio.run(look)


# ── what is not trusted ──────────────────────────────────────────────────────────────────────────


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    image = make_image()
    lay(outside, {"v1": image})
    folder = lay(root / "app", {"v1": image})
    (root / "escape").symlink_to(outside)
    blob = folder / "blobs" / "sha256" / image.digest.hex
    blob.unlink()
    blob.symlink_to(outside / "blobs" / "sha256" / image.digest.hex)
    assert repositories(root) == ["app"]
    with pytest.raises(NotFound):
        tags(root, "escape")
    with pytest.raises(NotFound, match="leads out of"):
        manifest(root, "app", "v1")
    (folder / "index.json").unlink()
    (folder / "index.json").symlink_to(outside / "index.json")
    with pytest.raises(NotFound, match="leads out of"):
        tags(root, "app")


def test_a_link_within_the_folder_works_and_makes_no_circle(tmp_path: Path) -> None:
    lay(tmp_path / "app", {"v1": make_image()})
    (tmp_path / "alias").symlink_to("app")
    (tmp_path / "app" / "up").symlink_to("..")
    (tmp_path / "self").symlink_to(".")
    assert repositories(tmp_path) == ["alias", "app"]
    assert tags(tmp_path, "alias") == ["v1"]


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    blob = folder / "blobs" / "sha256" / image.digest.hex
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(NotFound, match="no regular file"):
        manifest(tmp_path, "app", "v1")


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("oci-layout", b'{"imageLayoutVersion": "2.0.0"}', Unsupported),
        ("oci-layout", b"{}", BadReply),
        ("oci-layout", b"[" * 4000, BadReply),
        ("oci-layout", b" " * 5000, TooLarge),
        ("index.json", b"", BadReply),
        ("index.json", b"[]", BadReply),
        ("index.json", b'{"manifests": 3}', BadReply),
        ("index.json", b"\xff", BadReply),
        ("index.json", b'{"manifests":' + b"[" * 100_000, BadReply),
    ],
)
def test_a_damaged_layout_is_an_error_of_its_own_and_of_no_other(
    tmp_path: Path, file: str, content: bytes, error: type[RegfsError]
) -> None:
    lay(tmp_path / "good", {"v1": make_image()})
    (lay(tmp_path / "bad", {"v1": make_image()}) / file).write_bytes(content)
    with pytest.raises(error):
        tags(tmp_path, "bad")
    with pytest.raises(error):
        delete(tmp_path, "bad", "v1")
    assert repositories(tmp_path) == ["bad", "good"]
    assert tags(tmp_path, "good") == ["v1"]


def test_an_index_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"v1": make_image()})
    os.truncate(folder / "index.json", oci_layout.MAX_INDEX + 1)
    with pytest.raises(TooLarge):
        tags(tmp_path, "app")


def test_a_manifest_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    os.truncate(folder / "blobs" / "sha256" / image.digest.hex, 5 * 1024 * 1024)
    with pytest.raises(TooLarge):
        manifest(tmp_path, "app", "v1")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda c: (
            st.lists(c, max_size=3)
            | st.dictionaries(
                st.sampled_from(["manifests", "digest", "size", "annotations", REF_NAME]), c, max_size=3
            )
        ),
        max_leaves=8,
    )
)
@settings(deadline=None)
def test_whatever_index_json_holds_only_our_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, document: object
) -> None:
    root = tmp_path_factory.getbasetemp() / "anything"
    folder = lay(root / "app", {})
    (folder / "index.json").write_text(json.dumps(document))
    for call in (lambda: tags(root, "app"), lambda: delete(root, "app", "v1")):
        with suppress(RegfsError):
            call()


def test_a_tree_of_too_many_folders_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "MAX_FOLDERS", 5)
    for number in range(6):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(TooLarge):
        repositories(tmp_path)


def test_a_folder_that_is_not_there_is_down_and_a_file_is_no_registry(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="there is no folder"):
        trio.run(source(tmp_path / "none").check)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotARegistry):
        trio.run(source(tmp_path / "file").check)
    trio.run(source(tmp_path).check)


# ── deleting ─────────────────────────────────────────────────────────────────────────────────────


def test_one_of_three_tags_of_a_digest_goes_and_nothing_else(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"a": image, "b": image, "c": image})
    before = {entry["annotations"][REF_NAME]: entry for entry in entries(folder)}
    delete(tmp_path, "app", "b", image.digest)
    assert tags(tmp_path, "app") == ["a", "c"]
    assert entries(folder) == [before["a"], before["c"]]
    assert manifest(tmp_path, "app", image.digest) == image.manifest.raw
    with pytest.raises(NotFound):
        manifest(tmp_path, "app", "b")


def test_the_last_tag_of_a_digest_leaves_the_digest_in_the_index_without_a_name(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    delete(tmp_path, "app", "v1")
    assert tags(tmp_path, "app") == []
    assert entries(folder) == [image.manifest.reference()]
    assert manifest(tmp_path, "app", image.digest) == image.manifest.raw


def test_a_tag_that_is_there_twice_goes_altogether(tmp_path: Path) -> None:
    one, two = make_image("1"), make_image("2")
    folder = lay(tmp_path / "app", {"x": one, "y": two})
    write_entries(
        folder,
        [
            one.manifest.reference(annotations={REF_NAME: "v1"}),
            two.manifest.reference(annotations={REF_NAME: "host/app:v1"}),
            two.manifest.reference(annotations={REF_NAME: "v2"}),
        ],
    )
    delete(tmp_path, "app", "v1", one.digest)
    assert tags(tmp_path, "app") == ["v2"]
    assert manifest(tmp_path, "app", one.digest) == one.manifest.raw


def test_a_tag_that_moved_or_is_gone_is_left_alone(tmp_path: Path) -> None:
    one, two = make_image("1"), make_image("2")
    folder = lay(tmp_path / "app", {"v1": two})
    before = (folder / "index.json").read_bytes()
    with pytest.raises(Moved):
        delete(tmp_path, "app", "v1", one.digest)
    with pytest.raises(NotFound):
        delete(tmp_path, "app", "v2", one.digest)
    assert (folder / "index.json").read_bytes() == before


def test_what_regfs_does_not_know_in_the_index_is_kept_byte_for_byte(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {"v1": image})
    odd = '{"deep":  [1.50, 1e400, "\\u00e4\\/", 12345678901234567890123]}'
    (folder / "index.json").write_text(
        f'{{"x": {odd}, "schemaVersion": 2.0, "manifests": ['
        f'{{"vendor": {odd}, "digest": "{image.digest}", "size": {len(image.manifest.raw)}, '
        f'"annotations": {{"{REF_NAME}": "v1", "other": "\\u00e4\\/"}}}}, '
        f'{{"odd": {odd}}}], "annotations": {{"z": "\\/"}}}}'
    )
    delete(tmp_path, "app", "v1")
    text = (folder / "index.json").read_text()
    assert text.count(odd) == 3
    assert '"schemaVersion":2.0' in text
    assert '"annotations":{"other":"\\u00e4\\/"}' in text
    assert '"annotations":{"z": "\\/"}' in text
    assert REF_NAME not in text


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), min_size=1, max_size=8),
    st.lists(st.sampled_from("abcd"), max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_after_any_deletions_the_other_tags_and_all_digests_stand(
    tmp_path_factory: pytest.TempPathFactory, laid: list[tuple[str, int]], deleted: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "model"
    images = [make_image(str(number)) for number in range(3)]
    folder = lay(root / "app", {"x": images[0], "y": images[1], "z": images[2]})
    write_entries(folder, [images[n].manifest.reference(annotations={REF_NAME: t}) for t, n in laid])
    model: dict[str, int] = {}
    for tag, number in laid:
        model.setdefault(tag, number)
    for tag in deleted:
        if tag in model:
            delete(root, "app", tag, images[model.pop(tag)].digest)
        else:
            with pytest.raises(NotFound):
                delete(root, "app", tag)
    assert {tag: manifest(root, "app", tag) for tag in tags(root, "app")} == {
        tag: images[number].manifest.raw for tag, number in model.items()
    }
    assert {entry["digest"] for entry in entries(folder)} == {str(images[n].digest) for _, n in laid}


def test_mode_and_owner_of_the_index_stay_and_no_file_is_left(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"v1": make_image()})
    (folder / "index.json").chmod(0o640)
    before = sorted(path.name for path in folder.iterdir())
    if os.geteuid() == 0:
        os.chown(folder / "index.json", 12, 34)
    old = (folder / "index.json").stat()
    delete(tmp_path, "app", "v1")
    new = (folder / "index.json").stat()
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert stat.S_IMODE(new.st_mode) == 0o640
    assert sorted(path.name for path in folder.iterdir()) == before


def test_deletions_at_the_same_time_are_all_done(tmp_path: Path) -> None:
    image = make_image()
    lay(tmp_path / "app", {f"v{n}": image for n in range(20)})
    sources = [source(tmp_path), source(tmp_path)]

    async def all_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(19):
                deletes = sources[number % 2].capability(DeletesTags)
                assert deletes is not None
                nursery.start_soon(deletes.delete_tag, "app", f"v{number}", image.digest)

    trio.run(all_at_once)
    assert tags(tmp_path, "app") == ["v19"]


def test_an_index_that_stays_locked_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_layout, "_LOCK_SECONDS", 0.0)
    folder = lay(tmp_path / "app", {"v1": make_image()})
    with (folder / "index.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeadlineExceeded, match="locked by another program"):
            delete(tmp_path, "app", "v1")
    delete(tmp_path, "app", "v1")


def test_a_disk_that_takes_no_more_refuses_and_changes_nothing(tmp_path: Path) -> None:
    image = make_image()
    folder = lay(tmp_path / "app", {f"v{n}": image for n in range(50)})
    before = (folder / "index.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(Refused, match="cannot be written: File too large"):
            delete(tmp_path, "app", "v1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "index.json").read_bytes() == before
    assert list(folder.glob(".*")) == []


def test_repositories_are_not_deleted_and_a_read_only_source_deletes_no_tag(tmp_path: Path) -> None:
    assert source(tmp_path).capability(DeletesRepositories) is None
    assert OciLayoutSource(f"oci:{tmp_path}", read_only=True).capability(DeletesTags) is None


def test_what_skopeo_writes_is_read_and_what_is_left_skopeo_reads(tmp_path: Path) -> None:
    image = make_image()
    lay(tmp_path / "from", {"v1": image})
    for tag in ("a", "b"):
        subprocess.run(
            ["skopeo", "copy", "-q", f"oci:{tmp_path}/from:v1", f"oci:{tmp_path}/app:{tag}"], check=True
        )
    assert tags(tmp_path, "app") == ["a", "b"]
    delete(tmp_path, "app", "a")
    kept = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{tmp_path}/app:b"], check=True, capture_output=True
    ).stdout
    assert kept == manifest(tmp_path, "app", "b")
    gone = subprocess.run(["skopeo", "inspect", f"oci:{tmp_path}/app:a"], check=False, capture_output=True)
    assert gone.returncode != 0


# ── the provider ─────────────────────────────────────────────────────────────────────────────────


def test_an_address_is_split_after_the_folder_that_holds_the_layout(tmp_path: Path) -> None:
    lay(tmp_path / "team" / "app", {"v1": make_image()})
    claims: Callable[[str], Any] = OciLayoutProvider().claim
    assert claims(f"oci:{tmp_path}").address == f"oci:{tmp_path}"
    assert claims(f"oci:{tmp_path}/").rest == ""
    assert claims(f"oci:{tmp_path}/team/").address == f"oci:{tmp_path}/team"
    inside = claims(f"oci:{tmp_path}/team/app/v1/manifest.json")
    assert (inside.address, inside.rest) == (f"oci:{tmp_path}/team", "app/v1/manifest.json")
    layout = claims(f"oci:{tmp_path}/team/app")
    assert (layout.address, layout.rest) == (f"oci:{tmp_path}/team", "app")
    absent = claims(f"oci:{tmp_path}/team/none/v1")
    assert (absent.address, absent.rest) == (f"oci:{tmp_path}/team", "none/v1")


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    claim = OciLayoutProvider().claim("oci:./images")
    assert claim is not None
    assert claim.address == f"oci:{tmp_path}/images"


def test_other_addresses_are_not_claimed_and_an_empty_path_says_what_is_missing() -> None:
    assert OciLayoutProvider().claim("localhost:5000") is None
    assert OciLayoutProvider().claim("ocid.example/x") is None
    with pytest.raises(ValueError, match="followed by the path"):
        OciLayoutProvider().claim("oci:")


def test_a_connection_yields_the_folder_and_honours_read_only(tmp_path: Path) -> None:
    lay(tmp_path / "app", {"v1": make_image()})
    connection = Connection("images", f"oci:{tmp_path}", "oci", "anonymous")

    async def look() -> None:
        for read_only in (True, False):
            tools = Tools(None, HttpPolicy("test", read_only=read_only), None, tmp_path)  # type: ignore[arg-type]
            (found,) = (await OciLayoutProvider().registries(connection, tools)).values()
            assert found.name == f"oci:{tmp_path}"
            assert (found.capability(DeletesTags) is None) is read_only

    trio.run(look)
