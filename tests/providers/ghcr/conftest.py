"""A fake GitHub for each test, and a connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_github import FakeGitHub
from tests.support.ghcr_source import Setting


@pytest.fixture
def fake() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github


@pytest.fixture
def setting(fake: FakeGitHub, tmp_path: Path) -> Setting:
    return Setting(fake, tmp_path / "state")
