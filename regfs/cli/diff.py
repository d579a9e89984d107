"""``regfs diff``: which files, config entries and layers changed between two images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from regfs.cli import output
from regfs.cli.edge import Advised, complain, printable
from regfs.errors import RegfsError

if TYPE_CHECKING:
    from regfs.cli.differences import Change, LayerLine
    from regfs.cli.images import Image
    from regfs.cli.sides import Side
    from regfs.cli.walk import Trees
    from regfs.manifest import Descriptor, Manifest

SAME: Final = 0
DIFFERENT: Final = 1
TROUBLE: Final = 2
"""The exit codes of diff(1)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared."""

    files: bool
    config: bool
    layers: bool
    platform: str = ""
    times: bool = False


@click.command()
@click.option("--files", is_flag=True, help="Compare files, and nothing else that isn't asked for.")
@click.option("--config", is_flag=True, help="Compare configs, and what the manifests say.")
@click.option("--layers", is_flag=True, help="Compare layers.")
@click.option("--times", is_flag=True, help="A file whose time of change differs is changed, too.")
@click.option(
    "--platform", metavar="OS/ARCH", default="", help="Which image of an index (default: this machine's)."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
def diff(
    a: str, b: str, files: bool, config: bool, layers: bool, times: bool, platform: str, as_json: bool
) -> int:
    """Say what changed from image A to image B: config entries, layers and files, by + (only in B), - (only in A), ~ (changed).

    A and B are tags or digests, in a mount or as REGISTRY/PATH, also of different registries. Exit code 0: they are the
    same, 1: they differ, 2: trouble.
    """
    from regfs.cli import walk

    chosen = files or config or layers
    wanted = Wanted(files or not chosen, config or not chosen, layers or not chosen, platform, times)

    async def compare(trees: Trees) -> int:
        try:
            one, other = await _located(trees, a), await _located(trees, b)
            found = await _compared(trees, one, other, wanted)
        except RegfsError as error:
            complain(error)
            return TROUBLE
        if as_json:
            output.as_json(_as_dict(found, wanted))
        else:
            for line in _lines(found):
                output.line(line)
        return DIFFERENT if found.differs else SAME

    try:
        return walk.run(compare)
    except RegfsError as error:
        complain(error)
        return TROUBLE


@dataclass(slots=True)
class Differences:
    """All that was found. ``a`` and ``b`` are the references with their digests."""

    a: str
    b: str
    config: list[Change] = field(default_factory=list)
    layers: list[LayerLine] = field(default_factory=list)
    files: list[Change] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether anything that was compared is not the same."""
        return bool(self.config or self.files or any(line.sign != "=" for line in self.layers))


# ── finding and comparing ──


async def _located(trees: Trees, text: str) -> Image:
    from regfs.cli import images, places

    try:
        place, inside = await places.find(trees, text)
        image = await images.image_at(place, inside)
    except RegfsError as error:
        error.message = f"{text}: {error.message}"
        error.args = (error.message,)
        raise
    if image is None:
        raise Advised(f"{text} is no image", "Name a tag or a digest: REGISTRY/REPOSITORY:TAG.")
    return image


async def _compared(trees: Trees, a: Image, b: Image, wanted: Wanted) -> Differences:
    from regfs.cli import differences
    from regfs.cli.sides import file_changes

    old, new = await _side(a, wanted.platform), await _side(b, wanted.platform)
    found = Differences(_named(old), _named(new))
    if wanted.layers:
        found.layers = differences.layer_lines(old.manifest.layers, new.manifest.layers)
    if old.manifest.digest == new.manifest.digest:
        return found
    if wanted.config:
        found.config = await _config_changes(old, new)
    if wanted.files:
        found.files = await file_changes(trees, old, new, times=wanted.times)
    return found


async def _side(image: Image, platform: str) -> Side:
    from regfs.cli.sides import Side

    manifest = await image.manifest()
    if not manifest.is_index:
        return Side(image, manifest)
    chosen = _for_platform(manifest, platform)
    if chosen is None:
        shown = ", ".join(name for name, _ in manifest.platforms()) or "none"
        raise Advised(
            f"{image.reference}: the index has no image for {platform or 'this machine'}",
            f"It has: {shown}. Name one with --platform.",
        )
    below = image.by_digest(chosen.digest)
    return Side(below, await below.manifest())


def _for_platform(index: Manifest, platform: str) -> Descriptor | None:
    from regfs.tree.contents import host_platform

    if not platform:
        return index.for_platform(host_platform())
    wanted = re.sub(r"[^a-z0-9._-]", "-", platform.lower())
    named = dict(index.platforms())
    fitting = [name for name in named if name == wanted or name.startswith(f"{wanted}-")]
    return named[fitting[0]] if fitting else None


async def _config_changes(old: Side, new: Side) -> list[Change]:
    from regfs.cli import differences

    entries = []
    for side in (old, new):
        found = differences.manifest_entries(side.manifest)
        if side.manifest.config is not None:
            raw = await side.image.config()
            found |= differences.config_entries(raw, is_image=side.manifest.is_image)
        entries.append(found)
    return differences.changes(*entries)


def _named(side: Side) -> str:
    name = side.image.reference
    digest = str(side.manifest.digest)
    return name if digest in name else f"{name} ({digest})"


# ── showing ──


def _lines(found: Differences) -> list[str]:
    if not found.differs:
        return []
    lines = [f"--- {found.a}", f"+++ {found.b}"]
    if found.config:
        lines += ["config:", *(_entry_line(change) for change in found.config)]
    if any(line.sign != "=" for line in found.layers):
        lines += ["layers:", *(_layer_line(line) for line in found.layers)]
    if found.files:
        lines += ["files:", *(_file_line(change) for change in found.files)]
    return [printable(line) for line in lines]


def _entry_line(change: Change) -> str:
    values = [_spelled(value) for value in (change.before, change.after) if value is not None]
    return f"{change.sign} {change.name}: {' -> '.join(values)}"


def _spelled(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable() and value == value.strip():
        return value
    return json.dumps(value, ensure_ascii=False)


def _layer_line(line: LayerLine) -> str:
    from regfs.cli.du import human

    return f"{line.sign} {line.layer.digest} {human(line.layer.size)}"


def _file_line(change: Change) -> str:
    fact = change.after if change.before is None else change.before
    if change.sign != "~":
        return f"{change.sign} {change.name}{fact.mark}"
    return f"~ {change.name}{fact.mark}: {', '.join(_aspect(change, name) for name in change.what)}"


def _aspect(change: Change, name: str) -> str:
    before, after = change.before.aspect(name), change.after.aspect(name)
    return name if before is None or after is None else f"{name} {before} -> {after}"


def _as_dict(found: Differences, wanted: Wanted) -> dict[str, object]:
    value: dict[str, object] = {"a": found.a, "b": found.b, "same": not found.differs}
    if wanted.config:
        value["config"] = [_change_as_dict(change) for change in found.config]
    if wanted.layers:
        value["layers"] = _layers_as_dict(found.layers)
    if wanted.files:
        value["files"] = [
            {
                **_change_as_dict(change),
                "before": None if change.before is None else change.before.as_dict(),
                "after": None if change.after is None else change.after.as_dict(),
                "what": list(change.what),
            }
            for change in found.files
        ]
    return value


_KINDS: Final = {"+": "added", "-": "removed", "~": "changed"}
_PLACES: Final = {"=": "both", "-": "a", "+": "b"}


def _change_as_dict(change: Change) -> dict[str, object]:
    return {
        "name": change.name,
        "change": _KINDS[change.sign],
        "before": change.before,
        "after": change.after,
    }


def _layers_as_dict(lines: Sequence[LayerLine]) -> list[dict[str, object]]:
    return [
        {
            "digest": str(line.layer.digest),
            "media_type": line.layer.media_type,
            "size": line.layer.size,
            "in": _PLACES[line.sign],
        }
        for line in lines
    ]
