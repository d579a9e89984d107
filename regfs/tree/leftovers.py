"""What is left in a repository once all that it lists was deleted here: tags that clients keep for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from regfs.errors import NotEmpty, NotFound, RegfsError
from regfs.reference import is_fallback_tag
from regfs.tree.taglists import TagList

if TYPE_CHECKING:
    from regfs.tree.registry import Registry

AT_ONCE = 8
"""How many are deleted at the same time."""


async def remove_leftovers(registry: Registry, repository: str) -> None:
    """Let fallback tags go with the repository, whose other tags were deleted here. Asks nothing where there are none.

    Raises NotEmpty where something else was pushed meanwhile, and what deleting a tag raises.
    """
    listed = registry.tags.last(repository)
    if listed is None or not any(map(is_fallback_tag, _living(registry, repository, listed))):
        return
    registry.tags.forget(repository)
    left = _living(registry, repository, await registry.tags.get(repository))
    others = [name for name in left if not is_fallback_tag(name)]
    if others:
        raise NotEmpty(f"{repository} holds {', '.join(others[:3])} by now: something was pushed to it")
    await _delete(registry, repository, left)


def _living(registry: Registry, repository: str, tags: TagList) -> list[str]:
    started = tags.age.started
    names = (*tags.names, *tags.hidden)
    return [name for name in names if not registry.graves.is_dead(repository, name, started)]


async def _delete(registry: Registry, repository: str, tags: Sequence[str]) -> None:
    """Delete these tags; the first error ends it, and is raised."""
    errors: list[RegfsError] = []
    slots = trio.CapacityLimiter(AT_ONCE)

    async def delete(tag: str) -> None:
        async with slots:
            if errors:
                return
            try:
                await registry.delete_tag(repository, tag, None, ())
            except NotFound:
                return
            except RegfsError as error:
                errors.append(error)

    async with trio.open_nursery() as nursery:
        for tag in tags:
            nursery.start_soon(delete, tag)
    if errors:
        raise errors[0].with_traceback(None)
