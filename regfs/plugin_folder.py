"""Plugins that are files in a folder (``plugins_dir`` in the config): no package, no entry point.

A file is run when the first plugin that regfs does not bring, and no package does, is looked for. Its public classes
that are shaped like a provider or an auth method are its plugins. Whoever can write to it can run code as this user, so
one that others could write to is refused.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

Shape = Literal["provider", "auth"]

MAX_FILE: Final = 1024 * 1024
"""The largest plugin file that is read, in bytes."""

PACKAGE: Final = "plugins_dir"
"""What stands before a file's name in the name of its module: ``plugins_dir.forge`` is ``forge.py``."""

_STEM: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SHAPES: Final[Mapping[Shape, tuple[str, ...]]] = {
    "provider": ("claim", "registries"),
    "auth": ("flow", "credential"),
}
"""The methods by which a class is taken for one of ours; what else it lacks is then said of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A class in a file, or (``error``) what is wrong with the file: then ``name`` is the file's, and ``shape`` None."""

    file: Path
    name: str
    shape: Shape | None = None
    value: str = ""
    error: str = ""


@cache
def found_in(folder: Path) -> Sequence[Found]:
    """What the folder's ``*.py`` hold, by file name. Runs each file once. A folder that is not there holds nothing."""
    try:
        _check_folder(folder)
        files = sorted(path for path in folder.iterdir() if path.suffix == ".py" and path.name[0] not in "._")
    except FileNotFoundError:
        return [Found(folder, folder.name, error="there is no such folder")]
    except OSError as error:
        return [Found(folder, folder.name, error=f"cannot be read: {error.strerror}")]
    except ValueError as error:
        return [Found(folder, folder.name, error=str(error))]
    return [found for file in files for found in _found(file)]


def _found(file: Path) -> Sequence[Found]:
    try:
        module = _run(file)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        return [Found(file, file.stem, error=reason)]
    except (Exception, SystemExit) as error:  # a stranger's code can raise anything
        return [Found(file, file.stem, error=_one_line(error))]
    classes = [Found(file, *described) for described in _plugins_of(module)]
    return classes or [
        Found(
            file,
            file.stem,
            error="holds no provider (a class with claim and registries) and no auth method (flow and credential)",
        )
    ]


def _plugins_of(module: ModuleType) -> Iterator[tuple[str, Shape, str]]:
    for attribute, value in list(vars(module).items()):
        if attribute.startswith("_") or not isinstance(value, type) or value.__module__ != module.__name__:
            continue
        for shape, methods in _SHAPES.items():
            if all(callable(getattr(value, method, None)) for method in methods):
                name = getattr(value, "name", None)
                yield name if isinstance(name, str) else attribute, shape, f"{module.__name__}:{attribute}"


def _run(file: Path) -> ModuleType:
    """Run a file as a module that `import_module` then finds. Raises OSError, ValueError and whatever it raises."""
    if not _STEM.fullmatch(file.stem):
        raise ValueError("its name is no module's: letters, digits, '-' and '_', a letter first")
    source = _read(file)
    module = ModuleType(f"{PACKAGE}.{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)  # noqa: S102  running it is the purpose
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _read(file: Path) -> bytes:
    """The file's content, judged by what was opened: another file may bear the name by then."""
    real = Path(os.path.realpath(file))
    _check_folder(real.parent)
    descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as stream:  # noqa: PTH123  a descriptor has no path
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("is not a regular file")
        _check_owner(real, facts)
        content = stream.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"is over {MAX_FILE // 1024} KiB: that is no plugin of one file")
    return content


def _check_folder(folder: Path) -> None:
    """ValueError: someone else can put files into the folder, or another folder in the place of one that leads there."""
    real = Path(os.path.realpath(folder))
    for place in (real, *real.parents):
        facts = place.stat()
        sticky = place != real and facts.st_mode & stat.S_ISVTX
        if not sticky:
            _check_owner(place, facts)


def _check_owner(path: Path, facts: os.stat_result) -> None:
    if facts.st_uid not in (0, os.geteuid()):
        raise ValueError(f"not run: {path} belongs to another user (uid {facts.st_uid})")
    if facts.st_mode & 0o022:
        raise ValueError(f"not run: others can write to {path}; `chmod go-w {path}` mends that")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0]
