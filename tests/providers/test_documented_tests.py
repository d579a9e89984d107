"""The tests that docs/plugins.md prints, run as they are printed on the provider that it prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from regfs.testing.contract import Harness, SourceContract
from tests.providers.documented import example

sys.modules["regfs_forge"] = example("forge")
_printed: Any = example("tests")

TestForgeProvider = _printed.TestForgeProvider
TestForgeSource = _printed.TestForgeSource


class TestShelf(SourceContract):
    """The Source of the page's other provider, with the harness that the page prints."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        (tmp_path / "shelf").mkdir()
        harness: Harness = example("harness").ShelfHarness(
            example("shelf").ShelfProvider(), f"shelf:{tmp_path}/shelf", tmp_path
        )
        return harness
