"""A registry that does not say what it holds is walkable by name."""

from __future__ import annotations

import pytest

from regfs.testing.behaviour import Behaviour
from regfs.testing.fake import FakeRegistry
from tests.support.mounts import Home, mounted

FLAGS = [(), ("--rw",)]


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_names_resolve_though_the_catalog_is_refused(home: Home, status: int, flags: tuple[str, ...]) -> None:
    with FakeRegistry(Behaviour(catalog_status=status)) as registry:
        registry.push("library/app", ["v1", "v2"])
        with mounted(*flags, registry.address, home=home) as mount:
            refused = mount.run("LC_ALL=C ls .")
            assert refused.returncode == 2
            assert "Permission denied" in refused.stderr
            assert mount.run("cd library").returncode == 0
            assert mount.run("stat -c %a library").stdout.strip() == "111"
            assert mount.read("library/app/v1/manifest.json")
            typo = mount.run("LC_ALL=C cat library/app/typo/manifest.json")
            assert "No such file or directory" in typo.stderr
            assert mount.run("test -e library/app/typo").returncode == 1
            assert mount.list() == ["library"]
            assert mount.list("library") == ["app"]
            assert mount.list("library/app") == ["v1", "v2"]
            partial = mount.run("getfattr --only-values -n user.regfs.partial library 2>/dev/null || true")
            assert partial.stdout in ("1", "")
            assert "shown in part" in mount.errors()


def test_configured_namespaces_are_listed(home: Home) -> None:
    with FakeRegistry(Behaviour(catalog_status=401)) as registry:
        registry.push("library/app", "v1")
        home.write_config(
            f'[registries.hub]\naddress = "{registry.address}"\nnamespaces = ["library", "team"]\n'
        )
        with mounted("hub", home=home) as mount:
            assert mount.list() == ["library", "team"]
            assert mount.read("library/app/v1/manifest.json")
            assert mount.list("library") == ["app"]


def test_a_fence_keeps_strangers_names_out_without_a_request(home: Home) -> None:
    with FakeRegistry() as registry:
        for name in ("team/app", "team/deep/app", "other/app"):
            registry.push(name, "v1")
        home.write_config(f'[registries.hub]\naddress = "{registry.address}"\nonly = ["team/*"]\n')
        with mounted("hub", home=home) as mount:
            registry.forget()
            assert mount.run("test -e other").returncode == 1
            assert mount.run("cat other/app/v1/manifest.json").returncode == 1
            assert mount.run("stat autorun.inf .git .Trash-0").returncode == 1
            assert registry.requests == []
            assert mount.list() == ["team"]
            assert mount.list("team") == ["app"]
