"""Docker Hub and GitHub's registry under the contract of providers. GitLab's is beside its sign-in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from regfs.ports import Credential
from regfs.providers.dockerhub import DockerHubProvider
from regfs.providers.ghcr import GhcrProvider
from regfs.testing.contract_provider import ProviderContract
from regfs.testing.harness import SECRET, ConnectionHarness, LeadsAstray
from regfs.testing.images import Pushable
from tests.support.fake_ghcr import GitHub
from tests.support.fake_github import FakeGitHub
from tests.support.fake_hub import FakeHub


class Hub(LeadsAstray, ConnectionHarness):
    def __init__(self, hub: FakeHub, folder: Path) -> None:
        hub.sign_up("team", SECRET)
        super().__init__(
            DockerHubProvider(),
            "docker.io",
            folder,
            credential=Credential("team", SECRET, origin="the test"),
            options=hub.options,
        )
        self.hub, self.registry = hub, hub.registry

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        self.hub.push(repository, tags, what)

    def requests(self) -> int:
        return len(self.hub.records) + len(self.hub.registry.records)


class TestDockerHubProvider(ProviderContract):
    addresses: ClassVar = {
        "docker.io": ("docker.io", ""),
        "https://index.docker.io/v1/": ("docker.io", ""),
        "registry-1.docker.io/team/app": ("docker.io", "team/app"),
        "https://hub.docker.com/r/team/app/tags": ("docker.io", "team/app"),
    }
    not_its_own: ClassVar = ("localhost:5000", "docker.io.example", "notdocker.io")
    malformed: ClassVar = ("docker.io:99999",)

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[Hub]:
        with FakeHub() as hub:
            yield Hub(hub, tmp_path)


class GitHubs(LeadsAstray, ConnectionHarness):
    def __init__(self, github: FakeGitHub, folder: Path) -> None:
        super().__init__(
            GhcrProvider(),
            github.address,
            folder,
            credential=Credential("anybody", SECRET, origin="the test"),
            options={"api": github.api},
        )
        self.github, self.registry = github, github.registry

    def push(self, repository: str, tags: Sequence[str], what: Pushable) -> None:
        self.github.push(repository, list(tags), what)

    def requests(self) -> int:
        return len(self.github.records) + len(self.github.registry.records)


class TestGhcrProvider(ProviderContract):
    addresses: ClassVar = {
        "ghcr.io": ("ghcr.io", ""),
        "https://GHCR.io/Octo-Org/app": ("ghcr.io", "octo-org/app"),
        "containers.octo.ghe.com": ("containers.octo.ghe.com", ""),
    }
    not_its_own: ClassVar = ("localhost:5000", "docker.pkg.github.com", "containers.example.com")
    malformed: ClassVar = ("ghcr.io:99999", "https://")
    repository: ClassVar = "octo-org/app"

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[GitHubs]:
        github = GitHub()
        github.tokens[SECRET] = github.tokens["ghp_good"]
        with FakeGitHub(github) as fake:
            yield GitHubs(fake, tmp_path)
