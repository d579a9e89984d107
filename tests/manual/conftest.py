"""Fixtures of the manual: the mounts that most pages begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regfs.testing.fake import FakeRegistry
from tests.support.mounts import Home, Mount, mounted


@pytest.fixture
def mount_of_one(home: Home) -> Iterator[tuple[FakeRegistry, Mount]]:
    """A read-only mount of a registry with one image, nothing asked of it yet but the first check."""
    with FakeRegistry() as registry:
        registry.push("team/app", "v1")
        with mounted("--ttl", "60", registry.address, home=home) as mount:
            registry.forget()
            yield registry, mount
