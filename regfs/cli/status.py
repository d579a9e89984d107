"""``regfs status``: what is mounted, who is signed in, and what was asked of the registries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, complain, printable, say
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.cli.mounts import Mounted


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(readable=False, path_type=Path))
def status(folder: Path | None, as_json: bool) -> int:
    """Show the mount that DIR is in, or all of yours: registries, sign-ins, and counters of what was asked.

    Asks no registry anything. Exit code 1 where a mount's daemon has died.
    """
    mounts = _chosen(folder)
    if not mounts and not as_json:
        say("nothing of regfs is mounted; `regfs mount REGISTRY DIR` mounts a registry")
    found = [(mount, _status(mount)) for mount in mounts]
    if as_json:
        output.as_json([_as_dict(mount, facts) for mount, facts in found])
    else:
        for mount, facts in found:
            _print(mount, facts)
    return FAILED if any(facts is None for _, facts in found) else OK


def _chosen(folder: Path | None) -> Sequence[Mounted]:
    from regfs.cli.mounts import mount_of, no_mount, our_mounts

    if folder is None:
        return our_mounts()
    mount = mount_of(folder.resolve())
    if mount is None:
        raise no_mount(folder)
    return [mount]


def _status(mount: Mounted) -> dict[str, Any] | None:
    from regfs.cli.mounts import read_status

    try:
        return read_status(mount)
    except RegfsError as error:
        complain(error)
        return None


def _as_dict(mount: Mounted, facts: Mapping[str, Any] | None) -> dict[str, Any]:
    where = {"folder": str(mount.folder), "source": mount.source, "writable": mount.writable}
    return {**where, "alive": facts is not None, "status": facts}


def _print(mount: Mounted, facts: Mapping[str, Any] | None) -> None:
    mode = "read and delete" if mount.writable else "read-only"
    state = mode if facts is not None else "dead"
    output.line(printable(f"{mount.folder}: {mount.source} ({state})"))
    for line in _lines(facts or {}, "  "):
        output.line(printable(line))


def _lines(value: Any, indent: str) -> list[str]:
    """Facts as indented text: a line for each key, and what is nested below it; items of a list go by their names."""
    lines = []
    for key, item in _named_items(value):
        nested = isinstance(item, Mapping | list) and bool(item)
        text = "" if nested else f" {_plain(item)}"
        lines.append(f"{indent}{key}:{text}")
        lines.extend(_lines(item, indent + "  ") if nested else ())
    return lines


def _named_items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    names = [item.get("name") if isinstance(item, Mapping) else None for item in value]
    return [(name or place, item) for place, (name, item) in enumerate(zip(names, value, strict=True), 1)]


def _plain(item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    return "none" if item in (None, "", [], {}) else str(item)
