"""A plugin may be one file in the folder that `plugins_dir` names: found, run when needed, refused where others can write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regfs import plugins
from regfs.config import load_settings, plugins_folder
from regfs.errors import PluginError
from regfs.plugin_folder import found_in
from tests.providers.documented import example_text
from tests.support.mounts import Home, mounted
from tests.test_plugins import PROVIDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the user's config names as its plugins_dir."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    place = tmp_path / "plugins"
    place.mkdir()
    config = tmp_path / "config" / "regfs" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'plugins_dir = "{place}"\n')
    forget()
    yield place
    forget()
    for name in [name for name in sys.modules if name.startswith("plugins_dir.")]:
        del sys.modules[name]


def forget() -> None:
    found_in.cache_clear()
    plugins._files.cache_clear()
    plugins._strangers.cache_clear()
    plugins._made.cache_clear()


def lay(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o644)
    forget()
    return file


def shown(name: str) -> list[tuple[str, str, str]]:
    return [(p.group, p.origin, p.error) for p in plugins.plugins() if p.name == name]


def test_the_setting_names_a_folder_and_is_read_before_the_registries_that_need_it(folder: Path) -> None:
    lay(folder, "shelf.py", PROVIDER)
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "regfs" / "config.toml"
    config.write_text(f'{config.read_text()}[registries.mine]\naddress = "shelf:/x"\n')
    forget()
    assert plugins_folder() == folder
    settings = load_settings()
    assert settings.plugins_dir == folder
    assert [(r.provider, r.address, r.auth) for r in settings.registries] == [
        ("shelf", "shelf:/x", "anonymous")
    ]


def test_each_provider_and_auth_method_of_a_file_is_found_by_its_shape(folder: Path) -> None:
    file = lay(folder, "both.py", f"{PROVIDER}\n{example_text('key')}")
    assert shown("shelf") == [("provider", str(file), "")]
    assert shown("forge-key") == [("auth", str(file), "")]
    assert plugins.provider("shelf").title == "A shelf"
    assert plugins.auth_method("forge-key").fields[0].secret
    assert plugins.claims("shelf:/x")[0] == "shelf"


def test_a_file_is_not_run_while_what_regfs_brings_is_enough(folder: Path) -> None:
    lay(folder, "shelf.py", "raise SystemExit('it was run')")
    assert plugins.provider("generic").name == "generic"
    assert plugins.auth_method("basic").name == "basic"
    assert "plugins_dir.shelf" not in sys.modules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "holds no provider"),
        ("from regfs.providers.generic import GenericProvider", "holds no provider"),
        ("#" * (1024 * 1024 + 1), "is over 1024 KiB"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_named_and_stops_nothing(
    folder: Path, text: str, reason: str
) -> None:
    file = lay(folder, "bad.py", text)
    lay(folder, "shelf.py", PROVIDER)
    ((group, origin, error),) = shown("bad")
    assert (group, origin) == ("file", str(file))
    assert reason in error
    assert "\n" not in error
    assert plugins.provider("shelf").name == "shelf"
    with pytest.raises(PluginError, match=r"there is no provider .nexus.*bad\.py cannot be used"):
        plugins.provider("nexus")


def test_a_class_that_lacks_something_is_named_with_what_it_lacks(folder: Path) -> None:
    lay(folder, "shelf.py", PROVIDER.replace('title = "A shelf"', "pass"))
    ((group, _, error),) = shown("shelf")
    assert (group, error) == ("provider", "plugins_dir.shelf:Shelf lacks title")


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622])
def test_a_file_that_others_could_write_to_is_not_run(folder: Path, mode: int) -> None:
    file = lay(folder, "shelf.py", "raise SystemExit('it was run')")
    file.chmod(mode)
    forget()
    ((_, _, error),) = shown("shelf")
    assert error == f"not run: others can write to {file}; `chmod go-w {file}` mends that"


def test_a_file_behind_a_link_is_judged_where_it_is(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "open-to-all"
    elsewhere.mkdir()
    lay(elsewhere, "shelf.py", PROVIDER)
    (folder / "shelf.py").symlink_to(elsewhere / "shelf.py")
    assert shown("shelf") == [("provider", str(folder / "shelf.py"), "")]
    elsewhere.chmod(0o777)
    forget()
    ((_, _, error),) = shown("shelf")
    assert error.startswith(f"not run: others can write to {elsewhere}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_run(folder: Path) -> None:
    file = lay(folder, "shelf.py", PROVIDER)
    os.chown(file, 12345, 12345)
    forget()
    ((_, _, error),) = shown("shelf")
    assert error == f"not run: {file} belongs to another user (uid 12345)"


@pytest.mark.parametrize("which", ["folder", "above"])
def test_a_folder_that_others_could_write_to_is_not_looked_into(folder: Path, which: str) -> None:
    lay(folder, "shelf.py", PROVIDER)
    place = folder if which == "folder" else folder.parent
    place.chmod(0o777)
    try:
        forget()
        assert shown("shelf") == []
        ((group, _, error),) = shown("plugins")
        assert group == "file"
        assert error.startswith(f"not run: others can write to {place};")
    finally:
        place.chmod(0o700)


def test_a_folder_that_is_not_there_is_said_and_stops_nothing(folder: Path) -> None:
    folder.rmdir()
    forget()
    assert shown("plugins") == [("file", str(folder), "there is no such folder")]
    assert plugins.claims("localhost:5000")[0] == "generic"


def test_ours_go_before_installed_ones_and_those_before_the_folders(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(folder, "one.py", PROVIDER)
    lay(folder, "two.py", PROVIDER.replace('"shelf"', '"oci"'))
    site = tmp_path / "site"
    info = site / "installed-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[regfs.providers]\nshelf = installed_shelf:Shelf\n")
    (site / "installed_shelf.py").write_text(PROVIDER.replace("A shelf", "Installed"))
    monkeypatch.syspath_prepend(str(site))
    forget()
    assert [(origin, error) for _, origin, error in shown("shelf")] == [
        ("installed 1.2", ""),
        (str(folder / "one.py"), "not used: 'shelf' is already installed 1.2's"),
    ]
    assert shown("oci")[1][2].startswith("not used: 'oci' is already regfs ")
    assert plugins.provider("shelf").title == "Installed"


def test_names_that_are_no_modules_are_passed_over_or_named(folder: Path) -> None:
    for name in (".hidden.py", "_private.py", "notes.txt"):
        lay(folder, name, "raise SystemExit")
    lay(folder, "a:b.py", PROVIDER)
    ((_, _, error),) = shown("a:b")
    assert "its name is no module's" in error
    assert len([p for p in plugins.plugins() if p.group == "file"]) == 1


def test_a_one_file_plugin_is_listed_and_mounted(home: Home, tmp_path: Path) -> None:
    from regfs.testing.images import make_image

    folder = tmp_path / "plugins"
    folder.mkdir()
    lay(folder, "shelf.py", example_text("shelf"))
    home.write_config(f'plugins_dir = "{folder}"\n')
    image = make_image()
    tree = tmp_path / "my.shelf" / "team" / "app"
    for name in ("tags", "blobs"):
        (tree / name).mkdir(parents=True)
    (tree / "tags" / "v1").write_text(str(image.digest))
    (tree / "blobs" / image.digest.file_name).write_bytes(image.manifest.raw)
    bad = lay(folder, "bad.py", "raise ImportError('it needs what is not here')")
    listed = home.regfs("plugins", check=True).stdout
    assert f"{folder}/shelf.py" in listed
    (line,) = [line for line in listed.splitlines() if str(bad) in line]
    assert line.split()[-8:] == ["unusable", "ImportError:", "it", "needs", "what", "is", "not", "here"]
    rows = {row["name"]: row for row in json.loads(home.regfs("plugins", "--json", check=True).stdout)}
    assert rows["bad"]["group"] == "file"
    assert "capabilities" not in rows["bad"]
    generic = rows["generic"]
    assert generic["capabilities"][:2] == ["ListsRepositories", "ListsReferrers"]
    assert (generic["default_auth"], generic["many"], generic["fields"]) == ("challenge", True, [])
    assert rows["basic"]["fields"][1] == {
        "name": "password", "label": "Password or token", "secret": True, "required": True,
    }  # fmt: skip
    assert "OffersOAuth" in rows["gitlab"]["roles"]
    address = f"shelf:{tmp_path / 'my.shelf'}"
    assert home.regfs("cat", f"{address}/team/app/v1/digest", check=True).stdout == f"{image.digest}\n"
    assert home.regfs("ls", address, check=True).stdout == "team\n"
    with mounted(address, home=home) as mount:
        assert mount.list("team") == ["app"]
        assert mount.read("team/app/v1/manifest.json") == image.manifest.raw
