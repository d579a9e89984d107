"""Which certificate was refused, in words."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from regfs.registry.certificates import describe, names
from tests.support.tls import CertificateAuthority


def der_of(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_a_certificate_is_named_by_its_holder_issuer_and_fingerprint(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path, "Corp Prüf CA")
    der = der_of(authority.issue("r.example").certificate)
    assert names(der) == ("Corp Prüf CA", "r.example")
    digest = hashlib.sha256(der).hexdigest().upper()
    assert (
        describe(der)
        == f"for 'r.example', issued by 'Corp Prüf CA', SHA-256 {':'.join(digest[i : i + 2] for i in range(0, 64, 2))}"
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_described_without_an_error(data: bytes) -> None:
    assert bool(describe(data)) is bool(data)


@given(st.data())
def test_a_damaged_certificate_is_described_without_an_error(data: st.DataObject) -> None:
    der = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    assert describe(bytes(der[: data.draw(st.integers(1, len(der)))])).isprintable()


def _sample() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return der_of(CertificateAuthority(Path(folder)).certificate)


SAMPLE = _sample()
