"""A new plugin's package, written from the templates beside this module: what ``regfs plugins new`` does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from regfs.errors import ConfigError
from regfs.plugins import ENTRY_POINT_GROUPS, OURS, Group

MAX_NAME: Final = 40
KINDS: Final = ("v2", "source", "auth")

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def write_package(name: str, kind: str, folder: Path) -> Path:
    """Write a package with one plugin into ``folder``, which must be new or empty; returns it.

    ``kind`` is one of `KINDS`. ConfigError: not a name, one that regfs itself bears, or a folder that cannot be written
    to or holds something.
    """
    group: Group = "auth" if kind == "auth" else "provider"
    check_name(name, group)
    contents = dict(_contents(name, kind, group))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(
                f"{folder} holds something already, and nothing is overwritten: name another folder"
            )
        for path, text in contents.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from error
    return folder


def check_name(name: str, group: Group) -> None:
    """ConfigError: not a plugin's name, or one that is ours."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigError(
            f"not a plugin's name: {name[:80]!r} (lower-case letters, digits and single '-', a letter first, "
            f"at most {MAX_NAME})"
        )
    if name in OURS[group]:
        raise ConfigError(f"{name!r} is regfs's own, which would always be used instead: take another name")


def _contents(name: str, kind: str, group: Group) -> Iterator[tuple[str, str]]:
    """Path in the package and text of each file."""
    stem = "".join(part.capitalize() for part in name.split("-"))
    values = {
        "name": name,
        "module": f"regfs_{name.replace('-', '_')}",
        "stem": stem,
        "entry": f"{stem}Auth" if group == "auth" else f"{stem}Provider",
        "title": " ".join(part.capitalize() for part in name.split("-")),
        "group": ENTRY_POINT_GROUPS[group],
    }
    places = {
        "src__init__.py": f"src/{values['module']}/__init__.py",
        "src_source.py": f"src/{values['module']}/source.py",
        "test.py": f"tests/test_{name.replace('-', '_')}.py",
    }
    for folder in ("common", kind):
        for template in files("regfs").joinpath("templates", folder).iterdir():
            target = template.name.removesuffix(".txt")
            yield places.get(target, target), Template(template.read_text("utf-8")).substitute(values)
