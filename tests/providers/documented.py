"""The examples of docs/plugins.md, taken from the page as they are printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def example_text(name: str) -> str:
    """The code block that follows the marker ``<!-- example: NAME -->``."""
    match = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None, f"docs/plugins.md has no example {name}"
    return match[1]


def example(name: str) -> Any:
    """The example as a module."""
    module = ModuleType(f"example_{name}")
    sys.modules[module.__name__] = module
    exec(compile(example_text(name), f"docs/plugins.md#{name}", "exec"), module.__dict__)
    return module
