"""The tests that docs/plugins.md prints, run as they are printed on the provider that it prints."""

from __future__ import annotations

import sys
from typing import Any

from tests.providers.documented import example

sys.modules["regfs_forge"] = example("forge")
_printed: Any = example("tests")

TestForgeProvider = _printed.TestForgeProvider
TestForgeSource = _printed.TestForgeSource
