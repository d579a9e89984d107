"""What differs between two images' configs, layers and artifact files. Pure.

Shapes: OCI image-spec 1.1, config.md. A config is taken apart into entries by name: each variable, label, port and volume is
one of its own. ``history``, ``rootfs`` and what Docker noted of the build container are no entries: the layers say it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from regfs.errors import BadReply
from regfs.manifest import Descriptor, Manifest

_NO_ENTRIES: Final = frozenset({"history", "rootfs", "config", "container", "container_config"})
_SETS: Final = {"ExposedPorts": "port", "Volumes": "volume"}
_WORDS: Final = {
    "Entrypoint": "entrypoint",
    "Cmd": "cmd",
    "User": "user",
    "WorkingDir": "workdir",
    "StopSignal": "stopsignal",
    "Healthcheck": "healthcheck",
    "Shell": "shell",
    "OnBuild": "onbuild",
}
"""Entries by the names of a Dockerfile's instructions, in lower case; others keep their own."""

_MAX_NESTING: Final = 64


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs. ``before`` or ``after`` None: it is in one image only. ``what``: which aspects changed."""

    name: str
    before: Any = None
    after: Any = None
    what: tuple[str, ...] = ()

    @property
    def sign(self) -> str:
        """``+`` added, ``-`` removed, ``~`` changed."""
        return "+" if self.before is None else "-" if self.after is None else "~"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """What differs between two mappings, by name."""
    return [
        Change(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def config_entries(raw: bytes, *, is_image: bool = True) -> dict[str, Any]:
    """A config as entries by name: ``env PATH``, ``label x``, ``user``, ``created`` … Empty and absent are the same.

    Of an artifact the members of whatever object its config is; of one that is no JSON object nothing. Raises BadReply
    where an image's config is none.
    """
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        if is_image:
            raise BadReply("the config is no JSON object")
        return {}
    if not is_image:
        return {name: value for name, value in config.items() if not _is_empty(name, value)}
    entries = {name: value for name, value in config.items() if name not in _NO_ENTRIES}
    inner = config.get("config")
    for name, value in inner.items() if isinstance(inner, dict) else ():
        entries.update(_entries(name, value))
    return {name: value for name, value in entries.items() if not _is_empty(name, value)}


def _entries(name: str, value: Any) -> dict[str, Any]:
    if name == "Env" and isinstance(value, list):
        pairs = [str(item).partition("=") for item in value]
        return {f"env {variable}": text for variable, _, text in pairs}
    if name == "Labels" and isinstance(value, dict):
        return {f"label {label}": text for label, text in value.items()}
    if name in _SETS and isinstance(value, dict):
        return {f"{_SETS[name]} {item}": True for item in value}
    return {_WORDS.get(name, name): value}


def _is_empty(name: str, value: Any) -> bool:
    """Builders write what is not set as null, as an empty text or list, or not at all. An empty variable or label is set."""
    is_set = name.startswith(("env ", "label ")) and value == ""
    return not is_set and (value is None or value is False or value in ("", [], {}))


def manifest_entries(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says beside its config and layers."""
    entries = {f"annotation {name}": text for name, text in manifest.annotations.items()}
    entries["media type"] = manifest.media_type
    if manifest.artifact_type:
        entries["artifact type"] = manifest.artifact_type
    if manifest.subject is not None:
        entries["subject"] = str(manifest.subject.digest)
    return entries


@dataclass(frozen=True, slots=True)
class LayerLine:
    """A layer in one image or both. ``sign``: ``=`` in both, ``-`` in the first only, ``+`` in the second only."""

    sign: str
    layer: Descriptor


def layer_lines(before: Sequence[Descriptor], after: Sequence[Descriptor]) -> list[LayerLine]:
    """Both images' layers, in order: the ones that are shared are those of the longest common sequence of digests."""
    import difflib

    old, new = [layer.digest for layer in before], [layer.digest for layer in after]
    lines: list[LayerLine] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for operation, a, a_end, b, b_end in matcher.get_opcodes():
        if operation == "equal":
            lines += [LayerLine("=", layer) for layer in before[a:a_end]]
            continue
        lines += [LayerLine("-", layer) for layer in before[a:a_end]]
        lines += [LayerLine("+", layer) for layer in after[b:b_end]]
    return lines


def shared_below(before: Sequence[Descriptor], after: Sequence[Descriptor]) -> int:
    """How many layers both images have in common from the bottom up."""
    count = 0
    for old, new in zip(before, after, strict=False):
        if old.digest != new.digest:
            break
        count += 1
    return count
