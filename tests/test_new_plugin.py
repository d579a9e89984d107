"""What `regfs plugins new` writes installs without a network, passes the kit's tests, and mounts: as it is, untouched."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx
import pytest

from regfs.errors import ConfigError
from regfs.plugin_new import KINDS, write_package
from regfs.providers.generic import GenericProvider
from regfs.testing.behaviour import Auth, Behaviour
from regfs.testing.fake import FakeRegistry
from tests.support import mounts
from tests.support.mounts import Home, mounted
from tests.test_third_party_plugin import ROOT, pip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean venv with wheels of regfs and of a new plugin of each kind; libraries are those of the tests."""
    base = tmp_path_factory.mktemp("new-plugin")
    ours = base / "regfs-source"
    shutil.copytree(ROOT / "regfs", ours / "regfs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, ours / name)
    venv = base / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = venv / "lib" / version / "site-packages" / "libraries.pth"
    libraries.write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    pip("wheel", "--wheel-dir", base / "wheels", "--no-build-isolation", ours)
    pip("--python", venv / "bin" / "python", "install", *(base / "wheels").glob("*.whl"))
    for kind in KINDS:
        # By the command that was just installed, so that the templates are those of the wheel.
        command = [
            str(venv / "bin" / "regfs"),
            "plugins",
            "new",
            f"my-{kind}",
            "--kind",
            kind,
            str(base / kind),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pip("wheel", "--wheel-dir", base / "new", "--no-build-isolation", *(base / kind for kind in KINDS))
    pip("--python", venv / "bin" / "python", "install", *(base / "new").glob("*.whl"))
    return base


@pytest.fixture
def stranger(site: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home in which `regfs` is the one of the clean venv."""
    monkeypatch.setattr(mounts, "regfs_command", lambda: [str(site / "venv" / "bin" / "regfs")])
    return home


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass_where_it_is_installed(site: Path, kind: str, tmp_path: Path) -> None:
    command = [str(site / "venv" / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--basetemp", str(tmp_path / "tests")],
        capture_output=True, text=True, check=False, cwd=site / kind,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_each_is_listed_with_what_it_can_do(stranger: Home) -> None:
    rows = [line.split() for line in stranger.regfs("plugins", check=True).stdout.splitlines()]
    new = {row[1]: row for row in rows if row[1].startswith("my-")}
    v2 = ["provider", "my-v2", "regfs-my-v2", "0.1", "regfs_my_v2:MyV2Provider", "ok"]
    can = ", ".join(kind.__name__ for kind in GenericProvider.capabilities)
    assert new["my-v2"] == [*v2, *can.split()]
    assert new["my-source"][-2:] == ["ok", "ListsRepositories"]
    assert new["my-auth"][0] == "auth"
    assert new["my-auth"][-1] == "ok"


def test_a_v2_one_is_mounted_listed_read_and_deleted_from(stranger: Home) -> None:
    with FakeRegistry() as registry:
        pushed = registry.push("team/app", ["v1", "v2"])
        options = ("--rw", "-o", "provider=my-v2")
        with mounted(*options, registry.address, home=stranger) as mount:
            assert mount.status()["registries"][0]["provider"] == "my-v2"
            assert mount.list("team/app") == ["v1", "v2"]
            assert mount.read("team/app/v1/manifest.json") == pushed.manifest.raw
            mount.run("rm -r team/app/v1", check=True)
            assert mount.list("team/app") == ["v2"]


def test_one_that_speaks_no_v2_is_mounted_listed_and_read(stranger: Home, tmp_path: Path) -> None:
    from regfs.testing.images import make_image

    image, home = make_image(), tmp_path / "images.my-source" / "team" / "app"
    for name in ("tags", "blobs"):
        (home / name).mkdir(parents=True)
    for content in (*image.blobs, *image.manifests()):
        (home / "blobs" / content.digest.file_name).write_bytes(content.raw)
    (home / "tags" / "v1").write_text(str(image.digest))
    address = f"my-source:{tmp_path / 'images.my-source'}"
    assert stranger.regfs("cat", f"{address}/team/app/v1/digest", check=True).stdout == f"{image.digest}\n"
    with mounted(address, home=stranger) as mount:
        assert mount.list("team") == ["app"]
        assert mount.list("team/app") == ["v1"]
        assert mount.read("team/app/v1/config.json") == image.config.raw


def test_a_way_of_signing_in_opens_a_registry_that_wants_it(stranger: Home) -> None:
    with FakeRegistry(Behaviour(auth=Auth.KEY, key_header="X-MyAuth-Key")) as registry:
        pushed = registry.push("team/app", ["v1"])
        file = stranger.path / "key"
        file.write_text("password=a-password\n")
        file.chmod(0o600)
        with mounted("-o", f"auth=my-auth,credentials={file}", registry.address, home=stranger) as mount:
            assert mount.read("team/app/v1/manifest.json") == pushed.manifest.raw
            assert "a-password" not in mount.log()


def test_the_kits_registry_is_served_to_try_a_plugin_on(stranger: Home, site: Path) -> None:
    names = stranger.path / "names.json"
    names.write_text('{"projects": ["team/app"]}')
    command = [str(site / "venv" / "bin" / "python"), "-m", "regfs.testing"]
    command += ["--answer", f"_forge/projects={names}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        try:
            address = served.stdout.readline().strip()
            listed = stranger.regfs("ls", f"{address}/team/app", check=True).stdout.split()
            assert listed == ["latest", "v1", "v2"]
            own = httpx.get(f"http://{address}/v2/_forge/projects", headers={"Accept-Encoding": "identity"})
            assert own.json() == {"projects": ["team/app"]}
        finally:
            served.terminate()
        assert served.wait(30) == 0


def test_an_answer_that_is_no_json_is_said_before_anything_is_served(stranger: Home, site: Path) -> None:
    file = stranger.path / "names.json"
    file.write_text("{")
    command = [str(site / "venv" / "bin" / "python"), "-m", "regfs.testing", "--answer"]
    for answer in (f"_forge/projects={file}", "_forge/projects"):
        done = subprocess.run([*command, answer], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert ("holds no JSON" if "=" in answer else "PATH=FILE is wanted") in done.stderr


@pytest.mark.parametrize(
    "name", ["", "Forge", "2forge", "for_ge", "-forge", "forge-", "a--b", "../x", "forge.py", "é", "a" * 41]
)
def test_what_is_no_plugins_name_is_refused_and_nothing_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a plugin's name"):
        write_package(name, "v2", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_regfss_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'oci' is regfs's own"):
        write_package("oci", "source", tmp_path / "new")
    write_package("oci", "auth", tmp_path / "new")


def test_nothing_is_overwritten(home: Home) -> None:
    place = home.path / "regfs-forge"
    place.mkdir()
    (place / "kept").write_text("mine")
    done = home.regfs("plugins", "new", "forge")
    assert done.returncode == 1
    assert "regfs-forge holds something already" in done.stderr
    assert "Nothing was written; `regfs plugins new --help` says what it takes." in done.stderr
    assert "DIR is the package's own" in home.regfs("plugins", "new", "--help", check=True).stdout
    assert [path.name for path in place.iterdir()] == ["kept"]
    (place / "kept").unlink()
    assert "wrote regfs-forge" in home.regfs("plugins", "new", "forge", check=True).stdout
    assert (place / "src" / "regfs_forge" / "__init__.py").is_file()


def test_a_folder_that_cannot_be_written_to_is_said(home: Home) -> None:
    (home.path / "file").write_text("")
    done = home.regfs("plugins", "new", "forge", "file/below")
    assert done.returncode == 1
    assert "file" in done.stderr
    assert "Not a directory" in done.stderr
