"""Plugins are found as they are, one that cannot be used is named, and none stops another."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs import plugins
from regfs.errors import ConfigError, PluginError

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"

PROVIDER = """
from regfs.ports import Claim

class Shelf:
    name = "shelf"
    title = "A shelf"
    default_auth = "anonymous"
    many = True
    fields = ()

    def claim(self, address):
        if address.startswith("shelf:"):
            return Claim(address, "", 100)
        if address == "shelf.bad":
            raise RuntimeError("claims badly")
        return None

    async def registries(self, connection, tools):
        return {}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path that wheels can be laid into."""
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    before = set(sys.modules)
    yield tmp_path
    forget()
    for name in set(sys.modules) - before:
        sys.modules.pop(name, None)


def forget() -> None:
    plugins._strangers.cache_clear()
    plugins._made.cache_clear()
    plugins._files.cache_clear()


def lay(site: Path, distribution: str, entry_points: str, **modules: str) -> None:
    """Put an installed distribution there, as pip leaves it."""
    info = site / f"{distribution}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
    for name, text in modules.items():
        (site / f"{name}.py").write_text(text)
    forget()


def found(name: str) -> list[plugins.Plugin]:
    return [plugin for plugin in plugins.plugins() if plugin.name == name]


def test_ours_are_those_that_the_package_registers() -> None:
    registered = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    assert {
        plugins.ENTRY_POINT_GROUPS[group]: dict(table) for group, table in plugins.OURS.items()
    } == registered


def test_every_plugin_of_ours_can_be_used_and_bears_its_name() -> None:
    ours = [plugin for plugin in plugins.plugins() if plugin.origin.startswith("regfs ")]
    registered = [(group, name, "") for group, table in plugins.OURS.items() for name in table]
    assert [(p.group, p.name, p.error) for p in ours] == registered
    for plugin in ours:
        made = (
            plugins.provider(plugin.name) if plugin.group == "provider" else plugins.auth_method(plugin.name)
        )
        assert made.name == plugin.name
        assert made.title


def test_a_strangers_plugin_is_found_with_where_it_comes_from(site: Path) -> None:
    lay(site, "regfs-shelf", "[regfs.providers]\nshelf = shelf_plugin:Shelf\n", shelf_plugin=PROVIDER)
    assert found("shelf") == [plugins.Plugin("shelf", "provider", "regfs-shelf 1.2", "shelf_plugin:Shelf")]
    assert plugins.provider("shelf").title == "A shelf"
    name, claim = plugins.claims("shelf:/x")
    assert (name, claim.address) == ("shelf", "shelf:/x")


def test_a_plugin_is_imported_only_when_it_is_asked_for(site: Path) -> None:
    lay(site, "shelf", "[regfs.providers]\nshelf = shelf_plugin:Shelf\n", shelf_plugin=PROVIDER)
    plugins.provider("generic")
    assert "shelf_plugin" not in sys.modules
    plugins.provider("shelf")
    assert "shelf_plugin" in sys.modules


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        (
            "bad_plugin:Shelf",
            "import no_such_module_at_all",
            "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        ),
        ("bad_plugin:Shelf", "raise SystemExit(3)", "SystemExit: 3"),
        ("bad_plugin:Shelf", "x = 1", "AttributeError: module 'bad_plugin' has no attribute 'Shelf'"),
        ("bad_plugin:Shelf", "class Shelf: name = 'shelf'", "bad_plugin:Shelf lacks title, default_auth"),
        ("bad_plugin:Shelf", PROVIDER.replace('name = "shelf"', 'name = "other"'), "calls itself 'other'"),
        ("bad_plugin:Shelf", PROVIDER + "    def __init__(self, x): ...", "TypeError"),
        ("no_plugin_module:Shelf", "", "ModuleNotFoundError"),
        ("bad_plugin:", "", "AttributeError"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_with_its_reason_and_stops_nothing(
    site: Path, value: str, text: str, reason: str
) -> None:
    lay(site, "bad", f"[regfs.providers]\nshelf = {value}\n", bad_plugin=text)
    (plugin,) = found("shelf")
    assert reason in plugin.error
    assert "\n" not in plugin.error
    with pytest.raises(PluginError, match=r"provider 'shelf' \(bad 1.2\) cannot be used"):
        plugins.provider("shelf")
    assert plugins.claims("localhost:5000")[0] == "generic"
    assert plugins.provider("oci").name == "oci"


def test_of_two_plugins_of_one_name_both_are_shown_and_ours_is_used(site: Path) -> None:
    text = PROVIDER.replace('"shelf"', '"oci"')
    lay(site, "taker", "[regfs.providers]\noci = shelf_plugin:Shelf\n", shelf_plugin=text)
    ours, taker = found("oci")
    assert ours.error == ""
    assert taker.origin == "taker 1.2"
    assert taker.error.startswith("not used: 'oci' is already regfs ")
    assert plugins.provider("oci").title == "Folder of OCI image layouts"


def test_of_two_strangers_of_one_name_the_first_is_used(site: Path) -> None:
    for name in ("one", "two"):
        text = PROVIDER.replace("A shelf", f"Shelf {name}")
        lay(site, name, f"[regfs.providers]\nshelf = {name}_plugin:Shelf\n", **{f"{name}_plugin": text})
    first, second = found("shelf")
    assert first.error == ""
    assert second.error == f"not used: 'shelf' is already {first.origin}'s"
    assert plugins.provider("shelf").title == f"Shelf {first.origin.partition(' ')[0]}"


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(PluginError, match=r"there is no provider 'nexus'; known: .*generic.*, oci"):
        plugins.provider("nexus")
    with pytest.raises(
        PluginError, match=r"there is no auth method 'magic'; known: anonymous, basic, challenge"
    ):
        plugins.auth_method("magic")


def test_a_plugin_says_what_it_can_do_without_a_connection(site: Path) -> None:
    text = PROVIDER.replace(
        "fields = ()",
        """fields = ()
    from regfs.ports import DeletesTags, ListsNamespaces
    capabilities = (ListsNamespaces, DeletesTags)

    def oauth(self, connection):
        raise AssertionError

    def recognise(self, address, status, headers):
        raise AssertionError
""",
    )
    lay(site, "shelf", "[regfs.providers]\nshelf = shelf_plugin:Shelf\n", shelf_plugin=text)
    able = plugins.abilities(found("shelf")[0])
    assert able is not None
    assert list(able.capabilities) == ["ListsNamespaces", "DeletesTags"]
    assert list(able.roles) == ["OffersOAuth", "RecognisesReplies"]
    assert (able.title, able.default_auth, able.many) == ("A shelf", "anonymous", True)


def test_a_plugin_that_fails_when_it_is_asked_what_it_can_do_stops_nothing(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = PROVIDER.replace("    fields = ()", "    capabilities = 3\n    fields = ()")
    lay(site, "shelf", "[regfs.providers]\nshelf = shelf_plugin:Shelf\n", shelf_plugin=text)
    assert plugins.abilities(found("shelf")[0]) is None
    assert "'shelf' does not say what it can do" in caplog.text
    assert plugins.abilities(plugins.Plugin("x", "provider", "", "", error="broken")) is None


def test_a_claim_that_fails_does_not_stop_the_others(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay(site, "shelf", "[regfs.providers]\nshelf = shelf_plugin:Shelf\n", shelf_plugin=PROVIDER)
    assert plugins.claims("shelf.bad")[0] == "generic"
    assert "provider 'shelf' failed" in caplog.text


@pytest.mark.parametrize(
    ("text", "provider", "address", "rest"),
    [
        ("localhost:5000", "generic", "localhost:5000", ""),
        ("localhost:5000/team/app/v1", "generic", "localhost:5000", "team/app/v1"),
        ("https://Registry.Example:443/Team", "generic", "registry.example", "Team"),
        ("http://registry.example/x", "generic", "registry.example:80", "x"),
        ("http://localhost/x", "generic", "localhost", "x"),
        ("http://registry.example:443", "generic", "registry.example:443", ""),
        ("[::1]:5000/app", "generic", "[::1]:5000", "app"),
        ("oci", "generic", "oci", ""),
        ("oci:5000/app", "generic", "oci:5000", "app"),
        ("oci:/", "oci", "oci:/", ""),
    ],
)
def test_an_address_is_known_by_its_form(text: str, provider: str, address: str, rest: str) -> None:
    name, claim = plugins.claims(text)
    assert (name, claim.address, claim.rest) == (provider, address, rest)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no host name"),
        ("a b", "not a host name"),
        ("ann:secretword@host", "no user name or password"),
        ("host:99999", "not a port"),
        ("s3://bucket/x", "no provider knows"),
        ("oci:", "followed by the path"),
    ],
)
def test_an_address_that_nobody_takes_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        plugins.claims(text)
    assert "secretword" not in str(caught.value)


def test_the_whole_of_an_address_keeps_its_prefix() -> None:
    assert plugins.normalised("https://Host.example/prefix/") == ("generic", "host.example/prefix")
    assert plugins.normalised("host.example", "generic") == ("generic", "host.example")
    with pytest.raises(ConfigError, match="not an address of the provider 'oci'"):
        plugins.normalised("host.example", "oci")


def test_without_a_strangers_plugin_no_package_metadata_is_read() -> None:
    code = (
        "import sys; from regfs import plugins; plugins.claims('localhost:5000'); plugins.provider('oci');"
        "print('importlib.metadata' in sys.modules, 'httpx' in sys.modules, 'trio' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False", "False"]
