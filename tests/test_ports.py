"""The contracts are had from `regfs.ports`, whatever module of it holds them."""

from __future__ import annotations

import ast
from pathlib import Path

from regfs import ports

MODULES = [path for path in Path(ports.__file__).parent.glob("*.py") if path.stem != "__init__"]


def test_every_contract_is_exported_by_the_package() -> None:
    defined = {
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    }
    assert len(defined) > 40
    assert set(ports.__all__) == defined | {"Fetch"}


def test_every_name_that_is_exported_is_there() -> None:
    assert [name for name in ports.__all__ if not hasattr(ports, name)] == []
