"""What came of asking a registry for one folder."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from regfs.errors import NotFound, RegfsError
from regfs.tree.catalog import Catalog, Names
from regfs.tree.taglists import TagList, TagLists


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What a repository or namespace holds. ``partial`` says why something may be missing; empty: nothing is."""

    tags: list[str]
    nested: list[str]
    partial: str = ""


class Outcome:
    """What came of asking for a folder: its tags and the names in it, or why not."""

    def __init__(self) -> None:
        self.tags: TagList | None = None
        self.names: Names | None = None
        self.tags_error: RegfsError | None = None
        self.names_error: RegfsError | None = None
        self.is_no_namespace = False

    async def take_tags(self, tags: TagLists, path: str) -> None:
        """Ask for a repository's tags."""
        try:
            self.tags = await tags.get(path)
        except RegfsError as error:
            self.tags_error = error

    async def take_names(self, catalog: Catalog, path: str, patience: float) -> None:
        """Ask for the list of what is in ``path``, and wait for it for ``patience`` seconds."""
        with trio.move_on_after(patience):
            try:
                self.names = await catalog.get(path)
            except RegfsError as error:
                self.names_error = error
                self.is_no_namespace = isinstance(error, NotFound) and catalog.by_namespace

    def partial(self) -> str:
        """Why something may be missing; empty: nothing is."""
        if self.tags_error is not None and not isinstance(self.tags_error, NotFound):
            return f"its tags could not be listed: {self.tags_error}"
        if self.is_no_namespace:
            return ""
        if self.names_error is not None:
            return f"its nested repositories are not all known: {self.names_error}"
        if self.names is None:
            return "its nested repositories are not known yet: the catalog is slow"
        return f"it holds more than may be listed: {self.names.partial}" if self.names.partial else ""
