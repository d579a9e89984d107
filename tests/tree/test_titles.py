"""What the blobs of an artifact are called in `layers/`."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.manifest import Descriptor
from regfs.tree.titles import TITLE, artifact_names, is_plain

TITLES = st.one_of(
    st.text(max_size=6),
    st.text(string.ascii_letters + "./:-\\\0 ", max_size=6),
    st.sampled_from(["a", "b", "sbom.json", "..", ".", "x" * 255, "é" * 128, "\ud800", "\u202egpj.exe"]),
    st.integers(0, 5).map(lambda n: Digest.of(bytes([n])).file_name),
)


def blob(number: int, title: str | None = None) -> Descriptor:
    data = bytes([number])
    return Descriptor("a/b", Digest.of(data), 1, annotations={} if title is None else {TITLE: title})


BLOBS = st.lists(st.builds(blob, st.integers(0, 5), st.none() | TITLES), max_size=8)


@given(BLOBS)
def test_every_blob_is_there_once_under_a_name_that_a_file_can_bear(blobs: list[Descriptor]) -> None:
    named = artifact_names(blobs)
    assert {b.digest for b in named.values()} == {b.digest for b in blobs}
    assert len(named) == len({b.digest for b in blobs})
    for name, found in named.items():
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\0:\n")
        assert len(name.encode()) <= 255
        assert name in (found.annotations.get(TITLE), found.digest.file_name)


@given(BLOBS)
def test_a_name_that_looks_like_a_digest_is_that_of_the_blob(blobs: list[Descriptor]) -> None:
    for name, found in artifact_names(blobs).items():
        if name.startswith("sha256-"):
            assert name == found.digest.file_name


def test_a_blob_bears_its_title_and_one_without_its_digest() -> None:
    with_title, without = blob(1, "sbom.json"), blob(2)
    assert artifact_names([with_title, without]) == {
        "sbom.json": with_title,
        without.digest.file_name: without,
    }


def test_two_blobs_of_one_title_bear_their_digests_and_the_third_its_own() -> None:
    named = artifact_names([blob(1, "a"), blob(2, "a"), blob(3, "b")])
    assert list(named) == [blob(1).digest.file_name, blob(2).digest.file_name, "b"]


def test_one_blob_that_is_named_twice_keeps_its_title() -> None:
    assert list(artifact_names([blob(1), blob(1, "a"), blob(1, "a")])) == ["a"]


@pytest.mark.parametrize(
    "title",
    [
        "", ".", "..", "a/b", "../../etc/passwd", "/etc/passwd", "a:b", "C\\b", "-rf", " a", "a ", "a\nb", "a\0b",
        "\x1b[31m", "\u202egpj.exe", "\ud800", "x" * 256, "é" * 128, Digest.of(b"").file_name,
    ],
)  # fmt: skip
def test_what_misleads_is_no_name(title: str) -> None:
    assert not is_plain(title)
    assert list(artifact_names([blob(1, title)])) == [blob(1).digest.file_name]


@pytest.mark.parametrize(
    "title", ["sbom.spdx.json", "chart 1.tgz", ".env", "Übung.txt", "x" * 255, "a-b", "sha256-x"]
)
def test_plain_titles_are_names(title: str) -> None:
    assert is_plain(title)
