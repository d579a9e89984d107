"""The contract of a Source, on each Source that providers give."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from regfs.connection import Connection
from regfs.errors import Refused
from regfs.ports import (
    DeletesTags,
    HttpPolicy,
    Provider,
    Source,
    Tools,
)
from regfs.providers.generic import GenericProvider
from regfs.providers.ghcr import GhcrProvider
from regfs.providers.gitlab import GitLabProvider
from regfs.providers.oci import OciLayoutProvider
from regfs.testing.contract import Harness, SourceContract
from regfs.testing.contract_tools import intact, run
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Pushable, make_image
from tests.support.fake_ghcr import GitHub
from tests.support.fake_github import FakeGitHub
from tests.support.fake_gitlab import FakeGitLab
from tests.support.fake_gitlab_data import OWNER
from tests.support.ghcr_source import Setting
from tests.support.gitlab_source import GitLabHarness

REF_NAME = "org.opencontainers.image.ref.name"


class ProviderHarness:
    """A Source as a provider makes it for a connection; subclasses push."""

    def __init__(self, provider: Provider, address: str, folder: Path) -> None:
        self._provider = provider
        self._connection = Connection("registry", address, provider.name)
        self._folder = folder

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Source]:
        tools = Tools(None, HttpPolicy("regfs-tests"), None, self._folder / "state")  # type: ignore[arg-type]
        (source,) = (await self._provider.registries(self._connection, tools)).values()
        try:
            yield source
        finally:
            await source.aclose()


class LayoutHarness(ProviderHarness):
    """Pushes as other tools do: blobs, then index.json."""

    def __init__(self, folder: Path) -> None:
        super().__init__(OciLayoutProvider(), f"oci:{folder}", folder)

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        layout = self._folder / repository
        for content in (*what.blobs, *what.manifests()):
            blob = layout / "blobs" / content.digest.algorithm / content.digest.hex
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content.raw)
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        index = layout / "index.json"
        before = json.loads(index.read_text())["manifests"] if index.exists() else []
        kept = [entry for entry in before if entry.get("annotations", {}).get(REF_NAME) not in tags]
        new = [what.manifest.reference(annotations={REF_NAME: tag}) for tag in tags]
        index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*kept, *new]}))


class FakeHarness(ProviderHarness):
    def __init__(self, registry: FakeRegistry, folder: Path) -> None:
        super().__init__(GenericProvider(), registry.address, folder)
        self._registry = registry

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        self._registry.push(repository, tags, what)


class TestOciLayouts(SourceContract):
    capabilities: ClassVar = OciLayoutProvider.capabilities

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return LayoutHarness(tmp_path)


class TestGenericProvider(SourceContract):
    capabilities: ClassVar = GenericProvider.capabilities

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        with FakeRegistry() as registry:
            yield FakeHarness(registry, tmp_path)


class TestGitLab(SourceContract):
    capabilities: ClassVar = GitLabProvider.capabilities
    keeps_referrers: ClassVar = False

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        with FakeGitLab() as gitlab:
            yield GitLabHarness(gitlab, gitlab.token(roles={"team": OWNER, "other": OWNER}), tmp_path)


class TestGitHubContainerRegistry(SourceContract):
    capabilities: ClassVar = GhcrProvider.capabilities
    keeps_referrers: ClassVar = False

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Harness]:
        owners = {name: {"Octocat"} for name in ("team", "other")}
        with FakeGitHub(GitHub(organisations=owners)) as github:
            yield Setting(github, tmp_path / "state")

    def test_deleting_the_last_tag_spares_the_digest_where_the_registry_does(self, harness: Harness) -> None:
        """GitHub deletes a package's last tag with the package alone, which no deletion of a tag may do."""
        image = make_image()
        harness.push("team/app", ["v1"], image)

        async def body(source: Source) -> None:
            deletes = source.capability(DeletesTags, "team/app")
            assert deletes is not None
            with pytest.raises(Refused, match="last tag"):
                await deletes.delete_tag("team/app", "v1", None)
            await intact(source, image, "v1", image.digest)

        run(harness, body)
