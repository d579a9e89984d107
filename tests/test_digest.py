"""Digests: only what can be verified is taken, and nothing wrong passes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regfs.digest import Digest
from regfs.errors import DigestMismatch, Unsupported

ALGORITHMS = st.sampled_from(["sha256", "sha512"])


@given(st.binary(max_size=2000), ALGORITHMS)
def test_a_digest_is_spelled_and_read_in_both_ways(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert str(digest) == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert Digest.parse(str(digest)) == digest
    assert Digest.from_file_name(digest.file_name) == digest
    assert ":" not in digest.file_name


@given(st.lists(st.binary(max_size=300), max_size=8), ALGORITHMS)
def test_bytes_are_verified_in_whatever_pieces_they_pass(pieces: list[bytes], algorithm: str) -> None:
    whole = b"".join(pieces)
    verifier = Digest.of(whole, algorithm).verifier()
    for piece in pieces:
        verifier.update(piece)
    verifier.finish()
    assert verifier.size == len(whole)
    Digest.of(whole, algorithm).check(whole)


@given(st.binary(max_size=300), st.binary(max_size=300), ALGORITHMS)
def test_other_bytes_never_pass(right: bytes, wrong: bytes, algorithm: str) -> None:
    if right == wrong:
        return
    digest = Digest.of(right, algorithm)
    with pytest.raises(DigestMismatch, match="layer: the bytes are"):
        digest.check(wrong, "layer")
    verifier = digest.verifier()
    verifier.update(wrong)
    with pytest.raises(DigestMismatch):
        verifier.finish()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 64 + "\n",
        " sha256:" + "0" * 64,
        "SHA256:" + "0" * 64,
        "sha256:" + "0" * 128,
        "sha512:" + "0" * 64,
        "sha256:../" + "0" * 61,
        "sha256:" + "\uff10" * 64,
        "sha256:" + "\u0660" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        Digest.parse(text)


@pytest.mark.parametrize("text", ["md5:" + "0" * 32, "sha384:" + "0" * 96, "sha256+b64:abc", "x.y:z"])
def test_an_algorithm_that_cannot_be_verified_is_unsupported(text: str) -> None:
    with pytest.raises(Unsupported):
        Digest.parse(text)


@given(st.text())
def test_any_text_is_a_digest_in_its_only_spelling_or_is_refused(text: str) -> None:
    for parse, spelled in ((Digest.parse, str), (Digest.from_file_name, lambda d: d.file_name)):
        try:
            digest = parse(text)
        except (ValueError, Unsupported):
            continue
        assert spelled(digest) == text


def test_a_file_name_needs_its_dash() -> None:
    with pytest.raises(ValueError, match="not a digest's file name"):
        Digest.from_file_name("sha256" + "0" * 64)
