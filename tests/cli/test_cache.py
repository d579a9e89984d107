"""`regfs cache`, and the settings that say where it is and how large."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from regfs.cache.disk import DiskStore
from regfs.config import load_settings
from regfs.digest import Digest
from regfs.errors import ConfigError
from tests.cache.hands import MB, content, files
from tests.support.mounts import Home


def kept(root: Path, *numbers: int) -> None:
    """Keep so many contents of 1 MiB, and something derived from the first."""

    async def keep() -> None:
        store = DiskStore(root, 100 * MB)
        for number in numbers:
            await store.put(Digest.of(content(number, MB)), content(number, MB))
        await store.put_derived(Digest.of(content(numbers[0], MB)), "index", 1, [b"index"])

    trio.run(keep)


@pytest.fixture
def root(home: Home, tmp_path: Path) -> Path:
    """A cache of the test's own, which the config names."""
    folder = tmp_path / "kept"
    home.write_config(f'cache_dir = "{folder}"\ncache_size = "3MiB"\n')
    return folder


def test_it_shows_what_is_there_and_its_limit(home: Home, root: Path) -> None:
    assert home.regfs("cache", check=True).stdout == f"{root}: 0 B of 3.0 MiB\n"
    kept(root, 1, 2)
    shown = home.regfs("cache", "show", check=True).stdout.splitlines()
    assert shown[0] == f"{root}: 2.0 MiB of 3.0 MiB"
    assert shown[1] == "  whole contents: 2, 2.0 MiB"
    assert shown[2] == "  layer indexes: 1, 4.0 KiB"
    found = json.loads(home.regfs("cache", "--json", check=True).stdout)
    assert found["folder"] == str(root)
    assert found["limit"] == 3 * MB
    assert found["content"] == {"files": 2, "size": 2 * MB}
    assert found["size"] == 2 * MB + 4096


def test_verify_finds_and_removes_what_is_damaged_and_says_so_by_its_exit_code(
    home: Home, root: Path
) -> None:
    kept(root, 1, 2)
    done = home.regfs("cache", "verify", check=True)
    assert "3 files (2.0 MiB) verified, 0 damaged" in done.stdout
    bad = root / "content" / Digest.of(content(2, MB)).file_name
    with bad.open("r+b") as file:
        file.write(b"wrong")
    done = home.regfs("cache", "verify", "--json")
    assert done.returncode == 1
    assert str(bad) in done.stderr
    found = json.loads(done.stdout)
    assert found["verified"] == 2
    assert [row["path"] for row in found["removed"]] == [str(bad)]
    assert not bad.exists()
    assert home.regfs("cache", "verify").returncode == 0


def test_prune_keeps_to_the_limit_or_to_what_it_is_told(home: Home, root: Path) -> None:
    kept(root, 1, 2, 3, 4, 5)
    home.regfs("cache", "prune", check=True)
    assert len(files(root, "content")) == 2
    found = json.loads(home.regfs("cache", "prune", "--to", "1.5M", "--json", check=True).stdout)
    assert found["before"] > found["after"] <= 1.5 * MB
    home.regfs("cache", "prune", "--to", "0", check=True)
    assert files(root, "content") == files(root, "derived") == []


def test_what_is_open_stays_and_the_command_says_why(home: Home, root: Path) -> None:
    async def test() -> None:
        data = content(1, MB)
        entry = await DiskStore(root, 100 * MB).open(Digest.of(data), len(data))
        assert entry is not None
        done = await trio.to_thread.run_sync(lambda: home.regfs("cache", "prune", "--to", "0", check=True))
        assert "in use" in done.stderr
        assert await entry.read(0, 10) == data[:10]
        await entry.aclose()

    kept(root, 1)
    trio.run(test)
    assert len(files(root, "content")) == 1


def test_a_folder_that_others_may_write_to_is_refused_with_the_reason(home: Home, root: Path) -> None:
    kept(root, 1)
    root.chmod(0o777)
    done = home.regfs("cache", "verify")
    assert done.returncode == 1
    assert "others can write there" in done.stderr
    assert "cache_dir" in done.stderr


@pytest.mark.parametrize("arguments", [["verify", "--to", "1G"], ["prune", "--to", "much"], ["empty"]])
def test_a_wrong_command_line_is_exit_2(home: Home, arguments: list[str]) -> None:
    assert home.regfs("cache", *arguments).returncode == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('"10GiB"', 10 * 2**30),
        ('"500M"', 500 * 2**20),
        ('"1.5 g"', 3 * 2**29),
        ("4096", 4096),
        ('"0"', 0),
    ],
)
def test_a_size_is_written_as_people_do(tmp_path: Path, text: str, size: int) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"cache_size = {text}\n")
    assert load_settings(files=[file]).cache_size == size


@pytest.mark.parametrize("text", ['"much"', '""', "-1", "true", '"1.5"', "[]", '"1P"'])
def test_what_is_no_size_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"cache_size = {text}\n")
    with pytest.raises(ConfigError, match="must be a size"):
        load_settings(files=[file])


def test_the_cache_is_where_caches_are_unless_it_is_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert load_settings(files=[]).cache_folder == Path("/caches/regfs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings(files=[]).cache_folder == tmp_path / ".cache" / "regfs"
    assert load_settings({"cache_dir": "~/elsewhere"}, files=[]).cache_folder == tmp_path / "elsewhere"
