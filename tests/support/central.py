"""A central registry in a mount's own daemon: it lists by namespace, dates its tags, and counts manifests against a quota.

A plugin of one file in ``plugins_dir`` serves what `PLUGIN` pushes, so that mounts of it are real, and its services none.
"""

from __future__ import annotations

from typing import Final

from tests.support.mounts import Home

ADDRESS: Final = "central.example"

PLUGIN: Final = """\
from datetime import UTC, datetime, timedelta

from regfs.errors import ListingRefused, RateLimited
from regfs.ports import Claim, Cost, TagFacts
from regfs.testing.images import make_image
from regfs.testing.memory import Abilities, MemorySource

DAYS = {"1.0": 1, "1.1": 2, "latest": 9, "1.2": 3}
ALLOWED = 3


class Central(MemorySource):
    def __init__(self):
        super().__init__(
            "central.example",
            Abilities(
                lists_repositories=False,
                lists_namespaces=True,
                metered=True,
                dates=Cost.FREE,
                digests_in_listings=True,
            ),
        )
        for tag in DAYS:
            self.push("library/alpine", tag, make_image("1.2" if tag == "latest" else tag))
        self.push("me/app", "v1", make_image("app"))
        self.push("me/tools/cli", "v1", make_image("cli"))
        self.push("strangers/app", "v1", make_image("strangers"))
        self.push("closed/app", "v1", make_image("closed"))
        self.secret = {"strangers/app"}
        self.partial["me"] = "the token does not see private repositories"
        refused = ListingRefused("not a member", registry=self.name)
        self.fail(refused, "namespace", "closed")

    def _facts(self, home, tag):
        return TagFacts(home.tags[tag], datetime(2024, 3, DAYS.get(tag, 1), tzinfo=UTC))

    async def manifest(self, repository, reference):
        if self.count("manifest") >= ALLOWED:
            raise RateLimited("too many pulls", retry_after=60, registry=self.name)
        return await super().manifest(repository, reference)


class CentralProvider:
    name = "central"
    title = "A central registry"
    default_auth = "anonymous"
    many = True
    fields = ()

    def claim(self, address):
        return Claim(address, "", 100) if address == "central.example" else None

    async def registries(self, connection, tools):
        return {"": Central()}
"""


def write_plugin(home: Home, settings: str = "") -> None:
    """Let the home's config name a folder with the plugin; ``settings`` are added to it."""
    folder = home.path / "plugins"
    folder.mkdir(exist_ok=True)
    (folder / "central.py").write_text(PLUGIN)
    home.write_config(f'plugins_dir = "{folder}"\n{settings}')
