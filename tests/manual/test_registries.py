"""Docker's own registry, set up in each of the ways in which people run it: listed, read and deleted in by a mount."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from regfs.testing.images import make_image
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry
from tests.support.tls import CertificateAuthority
from tests.support.tokens import TokenServer


@dataclass
class Setup:
    """A registry, and what a mount of it has to be told."""

    registry: DockerRegistry
    flags: tuple[str, ...] = ()


@pytest.fixture(params=["no sign-in", "htpasswd", "tokens", "own CA", "own CA and htpasswd", "prefix"])
def setup(
    request: pytest.FixtureRequest,
    docker_registry: Callable[..., DockerRegistry],
    token_server: Callable[..., TokenServer],
    authority: CertificateAuthority,
    home: Home,
) -> Setup:
    users = {"tester": "a-password"}
    options: dict[str, object] = {}
    if "htpasswd" in request.param:
        options["htpasswd"] = users
    if request.param == "tokens":
        options["token"] = token_server(users)
    if "CA" in request.param:
        options["tls"] = authority.issue("127.0.0.1")
    if request.param == "prefix":
        options["prefix"] = "/hub/"
    registry = docker_registry(**options)
    home.docker_login(registry.address, *next(iter(users.items())))
    return Setup(registry, ("-o", f"ca={authority.certificate}") if "CA" in request.param else ())


def test_it_is_listed_read_and_deleted_in(setup: Setup, home: Home) -> None:
    registry = setup.registry
    if registry.options.prefix:
        # skopeo knows no prefix: the content is laid into the storage.
        image = make_image("prefixed")
        registry.lay_image("team/app", image, ["v1", "v2", "v3"])
        digest = image.digest
    else:
        digest = registry.push("team/app", ["v1", "v2", "v3"]).digest
    with mounted("--rw", *setup.flags, registry.address, home=home) as mount:
        assert mount.stderr == ""
        assert mount.list() == ["team"]
        assert mount.list("team/app") == ["v1", "v2", "v3"]
        assert mount.read("team/app/v1/digest").decode() == f"{digest}\n"
        assert mount.read("team/app/v1/config.json")
        mount.run("rm -r team/app/v1", check=True)
        assert mount.list("team/app") == ["v2", "v3"]
        assert registry.tags("team/app") == {"v2": digest, "v3": digest}
