"""Which tag, digest or repository a path in a registry's tree belongs to: the tree's shape, read backwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from regfs.digest import Digest
from regfs.errors import RegfsError
from regfs.reference import Reference

DigestOf = Callable[[Sequence[str]], Awaitable[str | None]]
"""The manifest's digest of the path that these names lead to, or None where it is neither tag nor manifest."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path belongs to; ``digest`` is the manifest's, where it belongs to a tag or a digest."""

    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def reference(self, registry: str, *, by_digest: bool = False) -> Reference:
        """The full reference: by tag where there is one, unless ``by_digest``."""
        named_by_tag = self.tag is not None and not by_digest
        return Reference(
            registry,
            self.repository,
            self.tag if named_by_tag else None,
            None if named_by_tag else self.digest,
        )


async def place_of(names: Sequence[str], digest_of: DigestOf) -> Place | None:
    """What ``names`` (from the registry's root, links resolved) belong to; None: the root, or our own ``.regfs``.

    Only as many names are asked about as need be. A folder that is no tag counts as a repository.
    """
    repository: list[str] = []
    for index, name in enumerate(names):
        rest = names[index + 1 :]
        if name == ".regfs":
            return None
        if name in (".digests", ".tags") and repository:
            return await _special("/".join(repository), name, rest, names[: index + 2], digest_of)
        if name == ".repos":
            continue
        nested = index > 0 and names[index - 1] == ".repos"
        digest = await digest_of(names[: index + 1]) if repository and not nested else None
        if digest is not None:
            return Place("/".join(repository), name, Digest.parse(digest))
        repository.append(name)
    return Place("/".join(repository)) if repository else None


async def _special(
    repository: str, name: str, rest: Sequence[str], path: Sequence[str], digest_of: DigestOf
) -> Place:
    if not rest:
        return Place(repository)
    if name == ".tags":
        digest = await digest_of(path)
        return Place(repository, rest[0], Digest.parse(digest) if digest else None)
    try:
        return Place(repository, digest=Digest.from_file_name(rest[0]))
    except (ValueError, RegfsError):
        return Place(repository)
