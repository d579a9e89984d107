"""``regfs cache``: what is kept on disk, whether it is sound, and making it smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, Advised, say

if TYPE_CHECKING:
    from pathlib import Path

    from regfs.cache.care import Finding

_KINDS: Final = {"content": "whole contents", "partial": "partial downloads", "derived": "layer indexes"}


@click.command()
@click.option(
    "--to", metavar="SIZE", help="With prune: how much may stay, such as 2GiB or 0 (default: the limit)."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.argument("action", type=click.Choice(["show", "verify", "prune"]), default="show")
def cache(action: str, to: str | None, as_json: bool) -> int:
    """Show what is kept on disk, verify it, or make it smaller.

    show: the folder, its limit, and what is in it. verify: hashes every content and removes what is damaged; exit code 1
    if something was. prune: removes leftovers, then what was not used for longest. What a mount has open stays.
    """
    from regfs.config import load_settings

    if to is not None and action != "prune":
        raise click.UsageError("--to goes with prune")
    settings = load_settings()
    root, limit = settings.cache_folder, settings.cache_size
    try:
        if action == "verify":
            return _verify(root, as_json)
        if action == "prune":
            return _prune(root, limit, limit if to is None else _size(to), as_json)
        return _show(root, limit, as_json)
    except OSError as error:
        raise Advised(
            f"{root}: {error.strerror or error}",
            "The folder must be yours alone; `cache_dir` in the config names another.",
        ) from error


def _size(text: str) -> int:
    from regfs.config_values import size

    try:
        return size(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--to") from error


def _show(root: Path, limit: int, as_json: bool) -> int:
    from regfs.cache.care import usage

    shares = usage(root)
    total = sum(share.size for share in shares.values())
    if as_json:
        kinds = {kind: {"files": share.files, "size": share.size} for kind, share in shares.items()}
        output.as_json({"folder": str(root), "limit": limit, "size": total, **kinds})
        return OK
    output.line(f"{root}: {_shown(total)} of {_shown(limit)}")
    for kind, share in shares.items():
        if share.files:
            output.line(f"  {_KINDS[kind]}: {share.files}, {_shown(share.size)}")
    return OK


def _verify(root: Path, as_json: bool) -> int:
    from regfs.cache.care import verify

    good, size = 0, 0
    bad: list[Finding] = []
    for finding in verify(root):
        size += finding.size
        if finding.fault:
            bad.append(finding)
            say(f"regfs: {finding.path}: {finding.fault}; removed")
        else:
            good += 1
    if as_json:
        removed = [{"path": str(finding.path), "fault": finding.fault} for finding in bad]
        output.as_json({"folder": str(root), "verified": good, "size": size, "removed": removed})
    else:
        output.line(f"{good + len(bad)} files ({_shown(size)}) verified, {len(bad)} damaged and removed")
    return FAILED if bad else OK


def _prune(root: Path, limit: int, to: int, as_json: bool) -> int:
    from regfs.cache.care import prune

    before, after = prune(root, limit, to)
    if as_json:
        output.as_json({"folder": str(root), "before": before, "after": after})
    else:
        output.line(f"{_shown(before - after)} removed, {_shown(after)} left")
    if after > to:
        say("regfs: the rest is in use: unmount what uses it, then prune again")
    return OK


def _shown(size: int) -> str:
    """A size for people: ``1.5 GiB``."""
    value, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
