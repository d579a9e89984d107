"""`regfs warm`: what it fetches ahead is there afterwards, and is not fetched again."""

from __future__ import annotations

import json
import os
import pty
import random
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from regfs.testing.fake import FakeRegistry
from regfs.testing.images import Content, Pushable, make_artifact, make_index
from tests.support import processes
from tests.support.layered import PLAIN, folder, image, layer
from tests.support.mounts import Home, mounted, regfs_command
from tests.support.registry import DockerRegistry

BASE = layer({"etc": folder, "etc/os-release": b"ID=regfs\n"})
APP = image(BASE, layer({"app": b"1" * 5000}))
OTHER = image(BASE, layer({"app": b"2" * 5000}))
BIG = image(layer({"noise": random.Random(1).randbytes(3_000_000)}, media_type=PLAIN))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", APP)
        registry.push("team/app", "v2", OTHER)
        yield registry


def count(*what: Pushable) -> tuple[int, int]:
    """How many blobs these have, each once, and their bytes."""
    blobs = {blob.digest: len(blob.raw) for each in what for blob in each.blobs}
    return len(blobs), sum(blobs.values())


def warmed(home: Home, *arguments: str) -> dict[str, dict[str, int]]:
    done = home.regfs("warm", "-q", "--json", *arguments, check=True)
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    assert not found["failed"]
    return found


def fetched(found: dict[str, dict[str, int]]) -> tuple[int, int]:
    return found["fetched"]["blobs"], found["fetched"]["size"]


def there(found: dict[str, dict[str, int]]) -> tuple[int, int]:
    return found["there"]["blobs"], found["there"]["size"]


def test_what_was_fetched_is_there_the_next_time(registry: FakeRegistry, home: Home) -> None:
    path = f"{registry.address}/team"
    first = warmed(home, path)
    assert (fetched(first), there(first)) == (count(APP, OTHER), (0, 0))
    assert registry.count("blob") == count(APP, OTHER)[0], "each blob is asked for once"
    registry.forget()
    second = warmed(home, path)
    assert (fetched(second), there(second)) == ((0, 0), count(APP, OTHER))
    assert registry.count("blob") == 0


def test_a_mount_then_reads_it_without_the_registry(registry: FakeRegistry, home: Home) -> None:
    warmed(home, f"{registry.address}/team/app/v1")
    registry.forget()
    with mounted(registry.address, home=home) as mount:
        assert mount.read("team/app/v1/layers/00.tar.gz") == BASE.raw
        assert mount.read("team/app/v1/rootfs/app") == b"1" * 5000
        assert mount.list("team/app/v1/rootfs") == ["app", "etc"]
    assert registry.count("blob") == 0


def test_what_rootfs_needs_is_made_ahead(registry: FakeRegistry, home: Home) -> None:
    warmed(home, f"{registry.address}/team/app/v1")
    kept = json.loads(home.regfs("cache", "--json", check=True).stdout)
    assert kept["derived"]["files"] == len(APP.layers)


def test_an_index_is_fetched_with_all_its_platforms(registry: FakeRegistry, home: Home) -> None:
    index = make_index(seed="warm", attestations=True)
    registry.push("team/multi", "v1", index)
    assert fetched(warmed(home, f"{registry.address}/team/multi/v1")) == count(index)


def test_an_artifact_is_fetched_too(registry: FakeRegistry, home: Home) -> None:
    artifact = make_artifact(files={"a": b"1", "b": b"2"})
    registry.push("charts", "c1", artifact)
    assert fetched(warmed(home, f"{registry.address}/charts/c1")) == count(artifact)


def test_a_file_is_fetched_alone(registry: FakeRegistry, home: Home) -> None:
    found = warmed(home, f"{registry.address}/team/app/v1/layers/00.tar.gz")
    assert fetched(found) == (1, len(BASE.raw))
    assert registry.count("blob") == 1


def test_any_file_of_a_tag_will_do(registry: FakeRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        found = warmed(home, f"{mount.path}/team/app/v1/config.json")
        assert fetched(found) == (1, len(APP.config.raw))
    found = warmed(home, f"{registry.address}/team/app/v1/manifest.json")
    assert (fetched(found)[0], there(found)[0]) == (2, 1)


def test_the_tags_of_a_repository_are_looked_up_together(registry: FakeRegistry, home: Home) -> None:
    for number in range(8):
        registry.push("team/many", f"t{number}", image(layer({"f": str(number).encode()})))
    registry.delay(0.2, "manifest")
    warmed(home, f"{registry.address}/team/many")
    assert registry.max_in_flight > 2


def test_a_layer_that_is_kept_elsewhere_is_no_failure(registry: FakeRegistry, home: Home) -> None:
    far = Content("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", BASE.raw)
    what = image(far, layer({"near": b"1"}))
    registry.push("team/far", "v1", what)
    registry.fail(404, lambda record: record.reference == str(far.digest))
    done = home.regfs("warm", f"{registry.address}/team/far/v1", check=True)
    assert "it is kept elsewhere, not in the registry" in done.stderr
    assert done.stdout.startswith("fetched 2 blobs ")


def test_in_a_mount_the_mounts_own_daemon_fetches(registry: FakeRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        first = warmed(home, f"{mount.path}/team/app/v1", f"{mount.path}/team/app/v2/layers/00.tar.gz")
        assert fetched(first) == count(APP)
        registry.forget()
        second = warmed(home, f"{mount.path}/team/app")
        assert (fetched(second)[0], there(second)) == (2, count(APP))
        assert mount.read("team/app/v1/layers/01.tar.gz") == APP.layers[1].raw
        assert registry.count("blob") == 2


def test_several_blobs_come_at_once_and_no_more_than_was_said(registry: FakeRegistry, home: Home) -> None:
    many = image(*(layer({"f": str(n).encode()}) for n in range(8)))
    registry.push("team/many", "v1", many)
    registry.delay(0.2, "blob")
    warmed(home, "-j", "3", f"{registry.address}/team/many/v1")
    assert 2 <= registry.max_in_flight <= 3


def test_a_blob_that_fails_is_told_of_at_the_end_and_stops_no_other(
    registry: FakeRegistry, home: Home
) -> None:
    wrong = APP.layers[1]
    registry.corrupt_blob("team/app", wrong.digest, b"x" * len(wrong.raw))
    done = home.regfs("warm", f"{registry.address}/team/app/v1", f"{registry.address}/nosuch/x")
    assert done.returncode == 1
    assert "fetched 2 blobs" in done.stdout
    assert "2 failed" in done.stdout
    failures = [line for line in done.stderr.splitlines() if line.startswith("regfs: ")]
    assert len(failures) == 2
    assert any(str(wrong.digest)[:19] in line and "Bad message" in line for line in failures)
    assert any("nosuch/x" in line for line in failures)
    registry.corrupt_blob("team/app", wrong.digest, wrong.raw)
    assert fetched(warmed(home, f"{registry.address}/team/app/v1"))[0] == 1


def test_what_ctrl_c_broke_off_is_taken_up(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/big", "v1", BIG)
    digest, size = str(BIG.layers[0].digest), len(BIG.layers[0].raw)
    gate = registry.stall(lambda record: record.reference == digest, after=2_000_000)
    path = f"{registry.address}/team/big/v1"
    process = subprocess.Popen(
        [*regfs_command(), "warm", "-q", path],
        env=home.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    partial = home.path / ".cache" / "regfs" / "partial"
    processes.wait_until(
        lambda: bool(gate.waiting) and any(p.stat().st_blocks * 512 > 1_500_000 for p in partial.glob("*")),
        "bytes come",
    )
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT, errors
    assert b"Traceback" not in errors
    registry.clear()
    gate.open()
    registry.forget()
    assert fetched(warmed(home, path))[1] >= size
    ranges = [r.headers.get("range", "") for r in registry.requests if r.reference == digest]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").partition("-")[0]) > 1_000_000


def test_where_nothing_is_kept_nothing_is_fetched(registry: FakeRegistry, home: Home) -> None:
    home.write_config("cache_size = 0\n")
    done = home.regfs("warm", f"{registry.address}/team/app/v1")
    assert done.returncode == 1
    assert "`cache_size` is 0" in done.stderr
    assert registry.requests == []


def test_more_than_the_cache_keeps_is_told_of(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/big", "v1", BIG)
    home.write_config('cache_size = "1MiB"\n')
    done = home.regfs("warm", f"{registry.address}/team/big/v1")
    assert "this is 2.9M, and the cache keeps 1.0M" in done.stderr
    assert done.returncode == 1
    assert "is not in the cache: there is no room for it" in done.stderr


def test_without_a_terminal_each_blob_is_a_line(registry: FakeRegistry, home: Home) -> None:
    done = home.regfs("warm", f"{registry.address}/team/app/v1", check=True)
    lines = done.stderr.splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(str(b.digest)[:19] for b in APP.blobs)
    assert done.stdout == f"fetched 3 blobs ({count(APP)[1]}), 0 were there (0)\n"
    assert home.regfs("warm", "-q", f"{registry.address}/team/app/v2", check=True).stderr == ""


def test_on_a_terminal_a_bar_grows(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/big", "v1", BIG)
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [*regfs_command(), "warm", f"{registry.address}/team/big/v1"],
        env={**home.env, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:
        pass  # the terminal's other end has been closed
    finally:
        os.close(ours)
    assert done.wait(timeout=30) == 0
    text = shown.decode()
    assert "2 blobs" in text
    assert "100%" in text
    assert "2.9M of 2.9M" in text


def test_it_works_with_dockers_registry(docker_registry: Callable[..., DockerRegistry], home: Home) -> None:
    registry = docker_registry()
    pushed = registry.push("team/app", ["v1", "v2"], make_index())
    assert fetched(warmed(home, f"{registry.address}/team")) == count(pushed)
    before = len(registry.requests())
    assert there(warmed(home, f"{registry.address}/team")) == count(pushed)
    assert not [line for line in registry.requests()[before:] if "/blobs/" in line.target]
