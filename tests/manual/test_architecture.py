"""docs/architecture.md speaks of the house as it is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_imports import GROUND, ROOMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WORDS = sorted(set(re.findall(r"`([^`\s]+)`", PAGE)))
PLACES = (
    "",
    "regfs",
    "regfs/tree",
    "regfs/cache",
    "regfs/image",
    "regfs/registry",
    "regfs/testing",
    "regfs/fuse",
    "tests/tree",
    "docs",
)
TO_COME = {"layers/", "rootfs/", "referrers/", "oci/"}


def test_every_file_that_the_page_names_is_there() -> None:
    files = {word for word in WORDS if re.fullmatch(r"[\w./-]*\.py|[\w./-]+/", word) and "NAME" not in word}
    links = set(re.findall(r"\]\(([^)#]+)", PAGE))
    missing = {name for name in files | links if not any((ROOT / place / name).exists() for place in PLACES)}
    assert len(files) > 50
    assert missing == TO_COME


def test_every_class_and_member_that_the_page_names_is_there() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "regfs").rglob("*.py"))
    names = [
        word.partition(".")[::2] for word in WORDS if re.fullmatch(r"[A-Z][a-zA-Z]*[a-z]\w*(\.\w+)?", word)
    ]
    members = {member for _, member in names if member}
    members |= {word for word in WORDS if re.fullmatch(r"_?[a-z]+_\w+|_?[A-Z]+_[A-Z]+", word)}
    assert len(names) > 25
    assert [name for name, _ in names if not re.search(rf"^(class {name}\b|{name} = )", source, re.M)] == []
    assert [name for name in members if not re.search(rf"\b{name}\b", source)] == []


def test_the_page_puts_every_room_on_its_floor() -> None:
    rows = [row.split("|")[1:3] for row in PAGE.splitlines() if re.match(r"\| \d \|", row)]
    shown = {
        name.rstrip("/").removesuffix(".py"): int(floor)
        for floor, names in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert {name: floor for name, floor in shown.items() if floor == 0} == dict.fromkeys(GROUND, 0)
    assert {name: floor for name, floor in shown.items() if name in ROOMS} == ROOMS
