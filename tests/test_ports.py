"""The contracts are had from `regfs.ports`, whatever module of it holds them."""

from __future__ import annotations

import ast
import re
from functools import reduce
from pathlib import Path

from regfs import ports

MODULES = [path for path in Path(ports.__file__).parent.glob("*.py") if path.stem != "__init__"]


def defined(node: ast.stmt) -> str:
    """The name that a statement of a module defines for others: a class, a function, or an alias of a type."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript()):
            return name
    return ""


def test_every_contract_is_exported_by_the_package() -> None:
    names = {defined(node) for path in MODULES for node in ast.parse(path.read_text()).body}
    assert "Fetch" in names
    assert len(names) > 40
    assert set(ports.__all__) == {name for name in names if name and not name.startswith("_")}


def test_every_name_that_is_exported_is_there() -> None:
    assert [name for name in ports.__all__ if not hasattr(ports, name)] == []


def test_every_contract_that_a_docstring_refers_to_is_there() -> None:
    product = Path(ports.__file__).parents[1]
    text = "\n".join(path.read_text() for path in product.rglob("*.py"))
    named = set(re.findall(r"`regfs\.ports\.([A-Z][\w.]*)`", text))
    assert len(named) > 40
    assert sorted(name for name in named if not _is_there(name)) == []


def _is_there(name: str) -> bool:
    try:
        reduce(getattr, name.split("."), ports)
    except AttributeError:
        return False
    return True
