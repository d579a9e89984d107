"""README.md is true: its sessions run as they stand there, one after another, and print what it prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs.testing.images import make_image, make_index
from tests.manual.test_semantics import FOLDER, REGISTRY, Place, Transcript, read_page
from tests.support.mounts import Home, force_unmount, fuse_mounts
from tests.support.needs import need_fuse, need_programs
from tests.support.processes import children, kill
from tests.support.registry import DockerRegistry, RegistryOptions

README = Path(__file__).parents[2] / "README.md"
SESSIONS = read_page(README.read_text())


@pytest.fixture
def place(home: Home, tmp_path: Path) -> Iterator[Place]:
    """The registry that README.md shows, and an empty folder to mount it on."""
    need_fuse()
    need_programs("docker-registry", "skopeo", "jq", "bash")
    folder = tmp_path / "registry"
    folder.mkdir()
    registry = DockerRegistry(tmp_path / "server", RegistryOptions()).start()
    before = set(children())
    try:
        registry.push("team/app", ["v1", "v2"], make_image("one"))
        registry.push("team/app", "latest", make_image("latest"))
        registry.push("team/app", "multi", make_index(seed="multi"))
        registry.push("library/base", "1.0", make_image("base"))
        yield Place(folder, home, {FOLDER: str(folder), REGISTRY: registry.address})
    finally:
        if folder in fuse_mounts():
            force_unmount(folder)
        for pid in set(children()) - before - {registry.pid}:
            kill(pid)
        registry.remove()


def prints_what_it_shows(place: Place, session: Transcript) -> None:
    printed = place.run(session.steps)
    pairs = zip(session.steps, printed, strict=True)
    assert [step.command for step, said in pairs if not step.matches(said)] == [], printed


def test_the_first_session_mounts_and_prints_what_it_shows(place: Place) -> None:
    mountpoint, place.folder = place.folder, place.home.path
    prints_what_it_shows(place, SESSIONS[0])
    assert mountpoint in fuse_mounts()


@pytest.mark.parametrize("session", SESSIONS[1:], ids=str)
def test_a_later_session_prints_what_it_shows(place: Place, session: Transcript) -> None:
    done = place.home.regfs("mount", "--rw", place.names[REGISTRY], str(place.folder))
    assert done.returncode == 0, done.stderr
    prints_what_it_shows(place, session)
