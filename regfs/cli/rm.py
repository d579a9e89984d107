"""``regfs rm``: delete tags, each one alone."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regfs.cli import output
from regfs.cli.edge import FAILED, OK, Advised, complain, printable
from regfs.cli.references import Named, named_in_mount
from regfs.errors import ReadOnly, RegfsError
from regfs.reference import is_tag

if TYPE_CHECKING:
    from regfs.cli.walk import Tree, Trees
    from regfs.tree.registry import Registry

_MANIFEST = "manifest.json"


@click.command()
@click.option("--dry-run", is_flag=True, help="Delete nothing; say what would be deleted.")
@click.argument("references", metavar="REF...", nargs=-1, required=True)
def rm(references: tuple[str, ...], dry_run: bool) -> int:
    """Delete the tag that each REF names, and nothing else: not its digest, not its siblings.

    REF is REGISTRY/REPOSITORY:TAG, or the path of a tag's folder (or of its manifest.json) in a mount made with --rw.
    """
    from regfs.cli import walk

    async def remove_all(trees: Trees) -> int:
        done = [await _remove(trees, reference, dry_run) for reference in references]
        return OK if all(done) else FAILED

    return walk.run(remove_all, rw=not dry_run)


async def _remove(trees: Trees, reference: str, dry_run: bool) -> bool:
    try:
        named = _tag_in_mount(reference)
        if named is None or dry_run:
            await _by_reference(trees, named.reference if named else reference, dry_run)
        else:
            _through_mount(named)
    except RegfsError as error:
        complain(error, reference)
        return False
    return True


# ── by reference, through a tree of this process ──


@dataclass(frozen=True, slots=True)
class _Target:
    """One tag of a registry, and the digest that it has now."""

    registry: Registry
    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        name = f"{self.registry.source.name}/{self.repository}:{self.tag}"
        return printable(f"{name} ({self.digest})")


async def _by_reference(trees: Trees, reference: str, dry_run: bool) -> None:
    path, tag = _split(reference)
    tree, repository = await trees.locate(path)
    target = await _target(tree, repository, tag)
    if dry_run:
        output.line(f"would delete {target}")
        for sibling in await _siblings(target):
            output.line(f"  stays: {sibling}, which has the same digest")
        return
    from regfs.digest import Digest

    seen = Digest.parse(target.digest)
    deletion = await target.registry.delete_tag(target.repository, target.tag, seen, ())
    output.line(f"deleted {target} by {printable(deletion.way)}")


def _split(reference: str) -> tuple[str, str]:
    """The path of the repository, and the tag. Advised: the reference names no tag."""
    path, slash, last = reference.rpartition("/")
    repository, colon, tag = last.partition(":")
    if "@" in last:
        raise Advised(
            "a digest is never deleted: other tags may have it, and people pin it",
            "Name a tag: REPOSITORY:TAG.",
        )
    if not (slash and colon and repository and is_tag(tag)):
        raise Advised(
            "this names no tag", "Spell it REGISTRY/REPOSITORY:TAG; no tag is ever guessed, `latest` neither."
        )
    return f"{path}/{repository}", tag


async def _target(tree: Tree, repository: str, tag: str) -> _Target:
    from regfs.cli.references import DIGEST

    if tree.connection is None or not repository:
        raise Advised("this names no repository", "Spell it REGISTRY/REPOSITORY:TAG.")
    node = await tree.find(f"{repository}/.tags/{tag}", follow=False)
    digest = await tree.attribute(node.ino, DIGEST)
    registry = next(iter(tree.filesystem.registries.values()))
    assert digest is not None, "a tag's folder that was found has its digest"
    return _Target(registry, repository, tag, digest)


async def _siblings(target: _Target) -> list[str]:
    """Other tags of the same digest, where the registry's listing says so: no request is made for each tag."""
    listed = await target.registry.tags.get(target.repository)
    same = (name for name, facts in listed.facts.items() if str(facts.digest) == target.digest)
    return sorted(name for name in same if name != target.tag)


# ── by path, through a mount ──


def _tag_in_mount(path: str) -> Named | None:
    """The tag whose folder or manifest.json ``path`` is, or None: it is in no mount. Advised: it is something else."""
    named = named_in_mount(path)
    if named is None:
        return None
    real = Path(os.path.realpath(path))
    if not named.tag or real not in (named.folder, named.folder / _MANIFEST):
        raise Advised(
            "this is no tag of a registry", "Name a tag's folder; for all else there is `rm -r` on the mount."
        )
    return named


def _through_mount(named: Named) -> None:
    """Delete through the mount's own daemon: with its sign-in, and so that the mount shows it at once."""
    try:
        (named.folder / _MANIFEST).unlink()
    except OSError as error:
        raise _refused(error, named) from error
    with suppress(OSError):
        named.folder.rmdir()
    output.line(f"deleted {named.reference} ({named.digest}) through the mount")


def _refused(error: OSError, named: Named) -> RegfsError:
    import errno

    if error.errno == errno.EROFS:
        return ReadOnly("the mount is read-only: nothing was asked of the registry")
    return Advised(f"{error.strerror}: the mount would not delete it", _last_error(named))


def _last_error(named: Named) -> str:
    """What the mount's daemon wrote about it, its advice included."""
    from regfs.cli.mounts import mount_of

    mount = mount_of(named.folder)
    try:
        lines = (mount.folder / ".regfs" / "errors").read_text().splitlines() if mount else []
    except OSError:
        lines = []
    return lines[-1] if lines else "The last lines of .regfs/errors in the mount say why."
