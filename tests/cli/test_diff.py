"""`regfs diff`: what changed between two images, and what that costs."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regfs.cli.differences import config_entries, layer_lines
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import make_artifact, make_image, make_index
from tests.support.layered import folder, image, layer, link
from tests.support.mounts import Home, mounted
from tests.support.registry import DockerRegistry

BASE = layer(
    {"etc": folder, "etc/os-release": b"ID=regfs\n", "etc/passwd": b"root\n", "bin": link("usr/bin")}
)
APP1 = layer({"app": folder, "app/run": b"one", "app/same": b"same", "app/old": b"x"})
APP2 = layer({"app": folder, "app/run": b"two", "app/same": b"same", "app/new": b"y"}, mtime=1_800_000_000)
CONFIG = {
    "Env": ["PATH=/bin", "A=1"],
    "Entrypoint": ["/app/run"],
    "Labels": {"kept": "1", "x": "old"},
    "User": "app",
    "ExposedPorts": {"80/tcp": {}},
}
V1 = image(BASE, APP1, config=CONFIG, created="2024-05-17T12:30:00Z")
V2 = image(
    BASE,
    APP2,
    config={
        **CONFIG,
        "Env": ["PATH=/bin:/app", "B="],
        "Labels": {"kept": "1"},
        "WorkingDir": "/app",
        "User": "",
    },
    created="2025-05-17T12:30:00Z",
)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        registry.push("team/app", ["v1", "stable"], V1)
        registry.push("team/app", "v2", V2)
        yield registry


def sections(text: str) -> dict[str, list[str]]:
    """What was printed below each head."""
    found: dict[str, list[str]] = {"": []}
    head = ""
    for line in text.splitlines():
        if re.fullmatch(r"[a-z]+:", line):
            head = line[:-1]
            found[head] = []
        else:
            found[head].append(line)
    return found


def diff(home: Home, *arguments: str) -> dict[str, list[str]]:
    done = home.regfs("diff", *arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    return sections(done.stdout)


def paths(registry: FakeRegistry, *tags: str) -> list[str]:
    return [f"{registry.address}/team/app/{tag}" for tag in tags]


def test_config_layers_and_files_are_told_apart(registry: FakeRegistry, home: Home) -> None:
    found = diff(home, *paths(registry, "v1", "v2"))
    base = f"{registry.address}/team/app"
    assert found[""] == [f"--- {base}:v1 ({V1.digest})", f"+++ {base}:v2 ({V2.digest})"]
    assert found["config"] == [
        "~ created: 2024-05-17T12:30:00Z -> 2025-05-17T12:30:00Z",
        "- env A: 1",
        '+ env B: ""',
        "~ env PATH: /bin -> /bin:/app",
        "- label x: old",
        "- user: app",
        "+ workdir: /app",
    ]
    assert found["layers"] == [
        f"= {BASE.digest} {len(BASE.raw)}",
        f"- {APP1.digest} {len(APP1.raw)}",
        f"+ {APP2.digest} {len(APP2.raw)}",
    ]
    assert found["files"] == ["+ app/new", "- app/old", "~ app/run: content"]


def test_the_exit_code_says_whether_they_differ(registry: FakeRegistry, home: Home) -> None:
    same = home.regfs("diff", *paths(registry, "v1", "stable"))
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    assert home.regfs("diff", *paths(registry, "v1", "v2")).returncode == 1
    for wrong in (paths(registry, "v1", "v9"), [registry.address, *paths(registry, "v1")]):
        done = home.regfs("diff", *wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("regfs: ")
    assert home.regfs("diff", "--files").returncode == 2


def test_the_same_digest_costs_two_manifests_and_no_blob(registry: FakeRegistry, home: Home) -> None:
    home.regfs("diff", *paths(registry, "v1", "stable"), check=True)
    assert registry.count("blob") == 0


def test_config_and_layers_fetch_no_layer(registry: FakeRegistry, home: Home) -> None:
    found = diff(home, "--config", "--layers", *paths(registry, "v1", "v2"))
    assert [*found] == ["", "config", "layers"]
    fetched = {record.reference for record in registry.requests if record.kind == "blob"}
    assert fetched == {str(V1.config.digest), str(V2.config.digest)}
    registry.forget()
    assert [*diff(home, "--layers", *paths(registry, "v1", "v2"))] == ["", "layers"]
    assert registry.count("blob") == 0


def test_only_what_is_asked_for_decides_the_exit_code(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/app", "relabelled", image(BASE, APP1, config={"Labels": {"new": "1"}}))
    only = home.regfs("diff", "--files", "--layers", *paths(registry, "v1", "relabelled"))
    assert (only.returncode, only.stdout) == (0, "")


def test_layers_that_both_have_at_the_bottom_are_not_fetched(registry: FakeRegistry, home: Home) -> None:
    noise = random.Random(7).randbytes(2_000_000)  # large enough not to come along unasked
    big = layer({"data": noise})
    for tag, content in (("1", b"1"), ("2", b"2")):
        registry.push("team/big", tag, image(big, layer({"app": folder, "app/run": content})))
    base = f"{registry.address}/team/big"
    assert diff(home, "--files", f"{base}/1", f"{base}/2")["files"] == ["~ app/run: content"]
    assert registry.count("blob") == 2
    assert not [record for record in registry.requests if record.reference == str(big.digest)]


def test_json_is_for_programs(registry: FakeRegistry, home: Home) -> None:
    done = home.regfs("diff", "--json", *paths(registry, "v1", "v2"))
    assert done.returncode == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["same"] is False
    assert {"name": "workdir", "change": "added", "before": None, "after": "/app"} in found["config"]
    assert [(line["digest"], line["in"]) for line in found["layers"]] == [
        (str(BASE.digest), "both"),
        (str(APP1.digest), "a"),
        (str(APP2.digest), "b"),
    ]
    changed = next(file for file in found["files"] if file["name"] == "app/run")
    assert (changed["change"], changed["what"]) == ("changed", ["content"])
    assert changed["before"]["size"] == changed["after"]["size"] == 3
    same = json.loads(home.regfs("diff", "--json", *paths(registry, "v1", "stable"), check=True).stdout)
    assert (same["same"], same["config"], same["files"]) == (True, [], [])
    assert {line["in"] for line in same["layers"]} == {"both"}


def test_times_are_compared_where_asked(registry: FakeRegistry, home: Home) -> None:
    found = diff(home, "--files", "--times", *paths(registry, "v1", "v2"))
    assert "~ app/same: time" in found["files"]


def test_images_of_two_registries(registry: FakeRegistry, home: Home) -> None:
    with FakeRegistry() as other:
        other.push("elsewhere", "x", V2)
        found = diff(home, paths(registry, "v1")[0], f"{other.address}/elsewhere:x")
    assert found["files"] == ["+ app/new", "- app/old", "~ app/run: content"]
    assert found[""][1] == f"+++ {other.address}/elsewhere:x ({V2.digest})"


def test_of_indexes_the_same_platform_is_compared(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/multi", "v1", make_index(seed="1"))
    registry.push("team/multi", "v2", make_index(seed="2"))
    base = f"{registry.address}/team/multi"
    found = diff(home, "--platform", "linux/arm64", f"{base}/v1", f"{base}/v2")
    assert found["files"] == ["~ etc/os-release: content"]
    arm = make_index(seed="1").images[1].digest
    assert found[""][0] == f"--- {base}:v1@{arm}"
    done = home.regfs("diff", "--platform", "plan9/386", f"{base}/v1", f"{base}/v2")
    assert done.returncode == 2
    assert "It has: linux-amd64, linux-arm64-v8." in done.stderr


def test_artifacts_are_compared_by_their_blobs(registry: FakeRegistry, home: Home) -> None:
    registry.push("charts", "1", make_artifact(files={"a.json": b"1", "b.json": b"2"}))
    registry.push("charts", "2", make_artifact(files={"a.json": b"3", "c.json": b"2"}))
    base = f"{registry.address}/charts"
    found = diff(home, f"{base}/1", f"{base}/2")
    assert found["files"] == ["~ a.json: content", "- b.json", "+ c.json"]
    assert registry.count("blob") <= 2  # their configs
    done = home.regfs("diff", f"{base}/1", *paths(registry, "v1"))
    assert done.returncode == 2
    assert "an image and an artifact" in done.stderr


def test_paths_in_a_mount_mean_what_they_show(registry: FakeRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        found = diff(home, f"{mount.path}/team/app/v1", f"{mount.path}/team/app/.tags/v2")
    assert found == diff(home, *paths(registry, "v1", "v2"))


def test_images_in_two_mounts_of_two_registries(registry: FakeRegistry, home: Home) -> None:
    with FakeRegistry() as other:
        other.push("elsewhere", "x", V2)
        with mounted(registry.address, home=home) as one, mounted(other.address, home=home) as two:
            found = diff(home, f"{one.path}/team/app/v1", f"{two.path}/elsewhere/x")
    assert found["files"] == ["+ app/new", "- app/old", "~ app/run: content"]


def test_a_layer_that_is_wrong_is_trouble(registry: FakeRegistry, home: Home) -> None:
    registry.corrupt_blob("team/app", APP2.digest, APP2.raw[:-9] + b"123456789")
    done = home.regfs("diff", "--files", *paths(registry, "v1", "v2"))
    assert (done.returncode, done.stdout) == (2, "")
    assert str(APP2.digest) in done.stderr


def test_a_hostile_config_is_trouble_and_steers_no_terminal(registry: FakeRegistry, home: Home) -> None:
    registry.push("team/app", "esc", image(BASE, config={"Labels": {"x\x1b[2J": "\x1b]0;owned\x07"}}))
    done = home.regfs("diff", "--config", *paths(registry, "v1", "esc"))
    assert "\x1b" not in done.stdout
    assert "label x" in done.stdout
    broken = make_image("broken")
    registry.push("team/app", "broken", broken)
    registry.corrupt_blob("team/app", broken.config.digest, b"[]")
    assert home.regfs("diff", *paths(registry, "v1", "broken")).returncode == 2


def test_it_works_with_dockers_registry(docker_registry: Callable[..., DockerRegistry], home: Home) -> None:
    registry = docker_registry()
    registry.lay_image("team/app", V1, ["v1"])
    registry.lay_image("team/app", V2, ["v2"])
    base = f"{registry.address}/team/app"
    assert diff(home, f"{base}:v1", f"{base}:v2")["files"] == ["+ app/new", "- app/old", "~ app/run: content"]


# ── the pure part ──


def test_configs_are_compared_entry_by_entry() -> None:
    raw = json.dumps(
        {
            "os": "linux",
            "history": [{}],
            "rootfs": {},
            "author": None,
            "config": {"Env": ["A=b=c", "EMPTY="], "Volumes": {"/v": {}}, "Cmd": [], "OnBuild": None},
        }
    ).encode()
    assert config_entries(raw) == {"os": "linux", "env A": "b=c", "env EMPTY": "", "volume /v": True}


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_config_is_an_error_for_an_image_and_nothing_for_an_artifact(raw: bytes) -> None:
    from regfs.errors import BadReply

    with pytest.raises(BadReply):
        config_entries(raw)
    assert config_entries(raw, is_image=False) == {}


def test_layers_keep_their_order() -> None:
    a, b, c, d = (layer({name: b""}).descriptor for name in "abcd")
    signs = [(line.sign, line.layer) for line in layer_lines([a, b, c], [a, d, c])]
    assert signs == [("=", a), ("-", b), ("+", d), ("=", c)]
