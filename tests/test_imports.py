"""Which room may import which: the house's floors, as a rule that every module is held to."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PRODUCT = Path(__file__).parent.parent / "regfs"

GROUND = frozenset(
    {
        "errors",
        "digest",
        "reference",
        "manifest",
        "connection",
        "ports",
        "wrapping",
        "advice",
        "fence",
        "redaction",
    }
)
"""Floor 0: values and contracts. `ports`, the contracts, is a package; the others are a module each."""

ROOMS = {"tree": 1, "registry": 2, "auth": 2, "cache": 2, "image": 2, "providers": 3, "fuse": 3, "cli": 4}
"""The floor of each package but `ports`. Modules beside them are of floor 0 if named above, else of floor 4."""

TOP = 4

FENCED = {
    "pyfuse3": frozenset({"fuse"}),
    "pyfuse3_asyncio": frozenset[str](),
    "httpx": frozenset({"registry", "auth"}),
    "httpcore": frozenset({"registry"}),
    "keyring": frozenset({"auth"}),
    "click": frozenset({"cli"}),
}
"""Libraries, and the only rooms that may import them. The kit for plugin authors, `testing`, may import all but pyfuse3."""

HEAVY = ("trio", "httpx", "keyring", "pyfuse3", "msgspec", "stamina", "ssl", "asyncio")
"""What a command that does not need it must not pay for when it starts."""


@dataclass(frozen=True)
class Import:
    """One import of ``target`` (a full dotted name) in ``module``."""

    module: str
    target: str
    line: int
    for_types: bool
    at_start: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def imports_of(module: str, text: str, *, is_package: bool = False) -> list[Import]:
    """Every import in a module's text: at its top, in functions, for types only, and by `import_module("…")`."""
    package = module if is_package else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, for_types: bool, at_start: bool) -> None:
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for statement in node.body:
                visit(statement, True, at_start)
            for statement in node.orelse:
                visit(statement, for_types, at_start)
            return
        found.extend(
            Import(module, target, node.lineno, for_types, at_start)
            for target in _targets(node, package)
            if isinstance(node, ast.stmt | ast.expr)
        )
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, for_types, at_start and not in_function)

    visit(ast.parse(text), False, True)
    return found


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(node: ast.AST, package: str) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=name, names=names, level=level):
            base = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
            whole = ".".join(part for part in (base, name or "") if part)
            yield from (f"{whole}.{alias.name}" for alias in names)
        case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]):
            if ast.unparse(func) in ("import_module", "importlib.import_module", "__import__"):
                yield name


def room_of(target: str) -> str:
    """The room of a name inside regfs: ``regfs.tree.nodes`` is in ``tree``, ``regfs.app`` in ``app``; regfs itself in none."""
    parts = target.split(".")
    return parts[1] if len(parts) > 1 else ""


def floor_of(room: str) -> int:
    """The floor that a room is on."""
    return 0 if room in GROUND else ROOMS.get(room, TOP)


def violations(found: Import) -> Iterator[str]:
    """Which rules an import breaks, in words."""
    here, top = room_of(found.module), found.target.partition(".")[0]
    if top == "regfs":
        yield from _house_violations(here, room_of(found.target))
    elif top in ("tests", "benchmarks"):
        yield "the product imports what is not shipped"
    elif top in FENCED and here not in FENCED[top] and not _is_excused(found, here, top):
        allowed = ", ".join(sorted(FENCED[top])) or "nobody"
        yield f"{top} is for {allowed} alone"


def _house_violations(here: str, there: str) -> Iterator[str]:
    if there in ("", here) or there.startswith("__"):
        return
    if there == "testing":
        yield "testing is imported by tests alone"
    elif here in ("testing", "__main__"):
        return
    elif here == "":
        yield "the package itself imports no room"
    elif there == "cli":
        yield "cli is imported by nobody"
    elif floor_of(there) > floor_of(here):
        yield f"{here} (floor {floor_of(here)}) imports upward: {there} is on floor {floor_of(there)}"
    elif floor_of(there) == floor_of(here) and 0 < floor_of(here) < TOP:
        yield f"rooms of one floor: {here} and {there}"


def _is_excused(found: Import, here: str, top: str) -> bool:
    if here == "testing":
        return top != "pyfuse3"
    return here == "ports" and top == "httpx" and found.for_types


def module_name(path: Path) -> str:
    """The dotted name of a file of the product."""
    parts = path.relative_to(PRODUCT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def product_imports() -> list[Import]:
    """Every import in the product."""
    return [
        found
        for path in sorted(PRODUCT.rglob("*.py"))
        for found in imports_of(module_name(path), path.read_text(), is_package=path.name == "__init__.py")
    ]


def test_each_module_imports_only_from_the_floors_below_it() -> None:
    broken = [f"{found}: {rule}" for found in product_imports() for rule in violations(found)]
    assert not broken, "\n" + "\n".join(broken)


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in PRODUCT.glob("*/__init__.py")}
    assert packages <= {*ROOMS, "testing", "ports"}


def test_no_two_modules_need_each_other_to_be_imported() -> None:
    modules = {module_name(path) for path in PRODUCT.rglob("*.py")}
    needs: dict[str, set[str]] = {module: set() for module in modules}
    for found in product_imports():
        if found.at_start and not found.for_types:
            target = found.target if found.target in modules else found.target.rpartition(".")[0]
            needs[found.module] |= {target} & modules - {found.module}
    while leaves := {module for module, needed in needs.items() if not needed}:
        needs = {module: needed - leaves for module, needed in needs.items() if module not in leaves}
    assert not needs, f"these import each other in a circle: {sorted(needs)}"


@pytest.mark.parametrize(
    ("module", "text", "rule"),
    [
        ("regfs.tree.nodes", "import regfs.app", "upward"),
        ("regfs.tree.nodes", "from regfs import registry", "upward"),
        ("regfs.tree.nodes", "def f():\n    from regfs.fuse import errnos", "upward"),
        ("regfs.tree.nodes", "from ..fuse import errnos", "upward"),
        ("regfs.tree.nodes", "import importlib\nimportlib.import_module('regfs.app')", "upward"),
        ("regfs.tree.nodes", "if TYPE_CHECKING:\n    from regfs.registry.client import Client", "upward"),
        ("regfs.errors", "from regfs.tree import nodes", "upward"),
        ("regfs.registry.client", "from regfs.auth.methods import Basic", "rooms of one floor"),
        ("regfs.providers.generic", "from regfs.fuse.session import run", "rooms of one floor"),
        ("regfs.tree.nodes", "import httpx", "alone"),
        ("regfs.tree.nodes", "async def f():\n    import pyfuse3", "alone"),
        ("regfs.mount", "import pyfuse3", "alone"),
        ("regfs.testing.fake", "import pyfuse3", "alone"),
        ("regfs.ports.auth", "import httpx", "alone"),
        ("regfs.ports.auth", "from regfs.auth.methods import Basic", "upward"),
        ("regfs.app", "from regfs.testing.memory import MemorySource", "tests alone"),
        ("regfs.app", "from regfs.cli.group import main", "nobody"),
        ("regfs.app", "from tests.support import processes", "not shipped"),
    ],
)
def test_a_breach_is_found_wherever_it_hides(module: str, text: str, rule: str) -> None:
    broken = [words for found in imports_of(module, text) for words in violations(found)]
    assert len(broken) == 1
    assert rule in broken[0]


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("regfs.tree.nodes", "from regfs.errors import NotFound\nimport trio"),
        ("regfs.tree.nodes", "from . import attributes\nfrom regfs.tree.names import Name"),
        (
            "regfs.providers.generic",
            "from regfs.registry.v2 import V2Source\nfrom regfs.auth.methods import Basic",
        ),
        ("regfs.ports.auth", "if TYPE_CHECKING:\n    import httpx\nfrom regfs.ports.source import Source"),
        ("regfs.app", "from regfs.fuse.session import run\nfrom regfs import config"),
        ("regfs.testing.fake", "import httpx\nfrom regfs.tree.filesystem import FileSystem"),
        ("regfs.cli.group", "from regfs.mount import mount\nfrom regfs import __version__"),
    ],
)
def test_what_the_house_allows_is_allowed(module: str, text: str) -> None:
    assert [words for found in imports_of(module, text) for words in violations(found)] == []


def test_help_loads_no_library_that_it_does_not_need() -> None:
    script = (
        "import sys\nsys.argv = ['regfs', '--help']\nfrom regfs.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage: regfs" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
