"""The contract of a provider, on ours that need no service of their own; and providers with a fault each, which it finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from regfs.providers.generic import GenericProvider
from regfs.providers.oci import OciLayoutProvider
from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.contract_provider import ProviderContract
from regfs.testing.fake import FakeRegistry
from regfs.testing.harness import ConnectionHarness, FakeHarness, ServiceHarness, signed_in
from regfs.testing.images import Pushable, write_layout
from tests.providers.documented import example


class OnFake(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {
        "localhost:5000": ("localhost:5000", ""),
        "https://Registry.Example:443/team/app/": ("registry.example", "team/app"),
        "http://registry.example": ("registry.example:80", ""),
        "[::1]:5000/app": ("[::1]:5000", "app"),
    }
    malformed = ("", "a b", "host:99999", "tester:secret@host")

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[ServiceHarness]:
        with FakeRegistry(signed_in()) as registry:
            yield FakeHarness(registry, GenericProvider(), tmp_path)


class TestGenericProviderWithTokens(OnFake):
    pass


class TestGenericProviderWithAPassword(OnFake):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[ServiceHarness]:
        with FakeRegistry(signed_in(Behaviour(auth=Auth.BASIC))) as registry:
            yield FakeHarness(registry, GenericProvider(), tmp_path)


class LayoutsHarness(ConnectionHarness):
    def push(self, repository: str, tags: object, what: Pushable) -> None:
        write_layout(self.folder / "layouts" / repository, dict.fromkeys(tags, what))  # type: ignore[call-overload]


class TestOciLayoutProvider(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {"oci:/srv/none/such": ("oci:/srv", "none/such")}
    not_its_own = ("localhost:5000", "oci:5000")
    malformed = ("oci:", "oci:a\0b")

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ServiceHarness:
        return LayoutsHarness(OciLayoutProvider(), f"oci:{tmp_path / 'layouts'}", tmp_path)


class ShelfHarness(ConnectionHarness):
    def push(self, repository: str, tags: object, what: Pushable) -> None:
        home = self.folder / "shelf" / repository
        for name in ("tags", "blobs"):
            (home / name).mkdir(parents=True, exist_ok=True)
        for content in (*what.blobs, *what.manifests()):
            (home / "blobs" / content.digest.file_name).write_bytes(content.raw)
        for tag in tags:  # type: ignore[attr-defined]
            (home / "tags" / tag).write_text(str(what.digest))


class TestTheShelfOfTheDocumentation(ProviderContract):
    addresses: ClassVar[Mapping[str, tuple[str, str]]] = {"shelf:/srv/x/": ("shelf:/srv/x", "")}
    not_its_own = ("localhost:5000",)

    @pytest.fixture
    def harness(self, tmp_path: Path) -> ServiceHarness:
        return ShelfHarness(example("shelf").ShelfProvider(), f"shelf:{tmp_path / 'shelf'}", tmp_path)
