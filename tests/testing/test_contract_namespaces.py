"""The contract of listing by namespace finds each defect that a Source may have in it, and nothing where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, Final, cast

import pytest

from regfs.errors import NotFound
from regfs.ports import ListsNamespaces, NamespacePage
from regfs.testing.contract_capabilities import CapabilityContract
from regfs.testing.memory import Abilities, MemorySource
from tests.support.harnesses import MemoryHarness


class Suite(CapabilityContract):
    capabilities: ClassVar = frozenset({ListsNamespaces})


class Broken(MemorySource):
    """A registry in memory with one defect in how it lists namespaces."""

    def __init__(self, defect: str) -> None:
        super().__init__(abilities=Abilities(lists_namespaces=True, repositories_per_page=50))
        self.defect = defect

    def capability(self, kind, repository=None):  # type: ignore[no-untyped-def]
        return self if kind is ListsNamespaces else super().capability(kind, repository)

    async def namespace(self, name: str) -> AsyncIterator[NamespacePage]:
        """See `ListsNamespaces`."""
        proper = cast("ListsNamespaces", MemorySource.capability(self, ListsNamespaces))
        while self.defect == "the paging does not end":
            yield NamespacePage()
        try:
            async for page in proper.namespace(name):
                yield self._changed(name, page)
                if self.defect == "the first page is all":
                    return
                if self.defect == "a page comes twice":
                    yield page
        except NotFound:
            if self.defect != "an unknown namespace is empty":
                raise

    def _changed(self, name: str, page: NamespacePage) -> NamespacePage:
        namespaces, repositories = list(page.namespaces), list(page.repositories)
        match self.defect:
            case "it tells of another's repositories" if name:
                repositories.append("stranger/app")
            case "it tells of namespaces further below":
                namespaces += [f"{found}/deep" for found in namespaces if found.endswith("/sub")]
            case "a repository that is a namespace too does not say so":
                repositories = [found for found in repositories if found != name]
            case "nested repositories are left out":
                namespaces = namespaces if not name else []
            case "names are relative":
                repositories = [found.rpartition("/")[2] for found in repositories]
        return NamespacePage(namespaces, repositories, page.partial)


DEFECTS: Final = {
    "the paging does not end": "ends",
    "the first page is all": "many",
    "a page comes twice": "once_each",
    "an unknown namespace is empty": "unknown",
    "it tells of another's repositories": "once_each",
    "it tells of namespaces further below": "once_each",
    "a repository that is a namespace too does not say so": "once_each",
    "nested repositories are left out": "once_each",
    "names are relative": "once_each",
}
"""Each defect, and a word of the test that has to find it."""


def failures(defect: str) -> list[str]:
    """The tests about namespaces that fail on a Source with that defect."""
    failed = []
    for name in [name for name in dir(Suite) if name.startswith("test_") and "namespace" in name]:
        try:
            getattr(Suite(), name)(MemoryHarness(Broken(defect)))
        except (Exception, pytest.fail.Exception):
            failed.append(name)
    return failed


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_suite_finds_the_defect(defect: str) -> None:
    assert any(DEFECTS[defect] in name for name in failures(defect)), failures(defect)


def test_the_suite_finds_nothing_where_nothing_is_wrong() -> None:
    assert failures("no defect") == []
