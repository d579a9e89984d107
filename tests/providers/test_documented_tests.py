"""The tests that docs/plugins.md prints, run as they are printed on the provider that it prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from regfs.testing.contract import Harness, SourceContract
from tests.providers.documented import example

_forge: Any = example("forge")
_forge.ForgeKey = example("key").ForgeKey
sys.modules["regfs_forge"] = _forge
_printed: Any = example("tests")
_printed_for_keys: Any = example("keytests")

TestForgeProvider = _printed.TestForgeProvider
TestForgeSource = _printed.TestForgeSource
TestForgeKey = _printed_for_keys.TestForgeKey
TestForgeWithItsKey = _printed_for_keys.TestForgeWithItsKey


class TestShelf(SourceContract):
    """The Source of the page's other provider, with the harness that the page prints."""

    capabilities = example("shelf").ShelfProvider.capabilities

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        (tmp_path / "my.shelf").mkdir()
        harness: Harness = example("harness").ShelfHarness(
            example("shelf").ShelfProvider(), f"shelf:{tmp_path}/my.shelf", tmp_path
        )
        return harness
