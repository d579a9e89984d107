"""Images of any order of adds, removals, type changes and links show as `umoci unpack` unpacks them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Image, write_layout
from tests.image.plain_merge import Extractor
from tests.image.strategies import layers
from tests.support.archives import Item, archive, layered_image, members_of
from tests.support.mounts import Home, mounted
from tests.support.needs import need_programs
from tests.support.trees import Seen, snapshot


def unpacked(image: Image, folder: Path) -> Path:
    """What umoci makes of an image."""
    layout = write_layout(folder / "layout", {"v1": image})
    root = folder / "root"
    command = ["umoci", "raw", "unpack", "--image", f"{layout}:v1", str(root)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return root


def differences(found: Mapping[bytes, Seen], expected: Mapping[bytes, Seen]) -> dict[bytes, object]:
    """The names that are not the same in both, with what they are."""
    names = found.keys() | expected.keys()
    return {n: (found.get(n), expected.get(n)) for n in names if found.get(n) != expected.get(n)}


def sound(image: Sequence[Sequence[Item]]) -> list[list[Item]]:
    """The image without the members at which umoci ends, or of which it forgets that it has just written them."""
    kept: list[list[Item]] = []
    for items in image:
        kept.append([])
        for item in items:
            kept[-1].append(item)
            extractor = Extractor()
            for layer, held in enumerate(kept):
                extractor.apply(layer, members_of(archive(held)))
            if extractor.refused or extractor.odd:
                kept[-1].pop()
    return kept


@pytest.fixture
def examples(tmp_path: Path) -> list[Path]:
    """Folders of examples so far: their number names the next."""
    return []


def test_generated_images_show_as_umoci_unpacks_them(
    home: Home, tmp_path: Path, examples: list[Path]
) -> None:
    need_programs("umoci")
    with FakeRegistry() as registry, mounted("-o", "symlinks=raw", registry.address, home=home) as mount:

        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(layers)
        def compare(generated: list[list[Item]]) -> None:
            image = layered_image([archive(items) for items in sound(generated)])
            number = len(examples)
            examples.append(tmp_path / str(number))
            registry.push("generated", f"v{number}", image)
            expected = snapshot(unpacked(image, examples[-1]))
            found = snapshot(mount.path / f"generated/.tags/v{number}/rootfs")
            assert differences(found, expected) == {}

        compare()
