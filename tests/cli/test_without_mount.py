"""`regfs ls`, `cat`, `stat`, `ref` and `rm` on registries, without a mount."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from regfs.testing.images import make_image, make_index
from tests.support import processes
from tests.support.mounts import Home, mounted, regfs_command
from tests.support.registry import DockerRegistry

Registries = Callable[..., DockerRegistry]


@pytest.fixture
def registry(docker_registry: Registries) -> DockerRegistry:
    """A registry with a tag and its twin, an index, and nested repositories."""
    registry = docker_registry()
    image = make_image("app")
    registry.lay_image("team/app", image, ["v1", "v2"])
    registry.lay_image("team/app", make_index(), ["both"])
    registry.lay_image("team/app/nested", make_image("nested"), ["n1"])
    registry.lay_image("library/other", make_image("other"), ["latest"])
    return registry


PATHS = [
    "",
    "team",
    "team/app",
    "team/app/",
    "team/app/v1",
    "team/app/both",
    "team/app/both/platforms",
    "team/app/.tags",
    "team/app/.tags/v1",
    "team/app/nested",
    "team/app/v1/../v2",
    "team/app:v1",
    "team/app/v9",
    "team/app/v1/nothing",
    "team/app/v1/manifest.json",
    "team/app/v1/manifest.json/deeper",
    "no/such/repository",
    "Not a Name",
]
FILES = [
    "team/app/v1/manifest.json",
    "team/app/v1/digest",
    "team/app/v1/config.json",
    "team/app:v1/digest",
    "team/app/both/manifest.json",
    "team/app/both/config.json",
    "team/app/both/platforms/linux-amd64/manifest.json",
    "team/app/v1",
    "team/app/v9/manifest.json",
    "team/app/v1/manifest.json/deeper",
    ".regfs/README",
]


def test_names_bytes_errors_and_exit_codes_are_the_mounts(registry: DockerRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        for path in PATHS:
            ours = home.regfs("ls", f"{registry.address}/{path}")
            theirs = mount.run(["ls", f"{mount.path}/{path}"])
            shown = theirs.stdout.replace(str(mount.path), registry.address)
            assert (ours.returncode, ours.stdout) == (theirs.returncode, shown), path
            assert_same_reason(ours, theirs)
        for path in FILES:
            ours = home.regfs("cat", f"{registry.address}/{path}")
            theirs = mount.run(["cat", f"{mount.path}/{path}"])
            assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), path
            assert_same_reason(ours, theirs)


def assert_same_reason(
    ours: subprocess.CompletedProcess[str], theirs: subprocess.CompletedProcess[str]
) -> None:
    """The system's words for what went wrong are the same."""
    words = theirs.stderr.strip().rpartition(": ")[2]
    first = ours.stderr.partition("\n")[0]
    assert first.endswith(words), (ours.stderr, theirs.stderr)


def test_ls_l_shows_mode_size_date_and_name_as_ls_does(registry: DockerRegistry, home: Home) -> None:
    with mounted(registry.address, home=home) as mount:
        for path in ("team/app/v1", "team/app/both/platforms", "team/app"):
            theirs = mount.run(["ls", "-l", f"{mount.path}/{path}"], check=True).stdout.splitlines()[1:]
            ours = home.regfs("ls", "-l", f"{registry.address}/{path}", check=True).stdout.splitlines()
            assert [facts(line) for line in ours] == [
                facts(re.sub(r"^(\S+) +\d+ +\S+ +\S+", r"\1", line)) for line in theirs
            ]


def facts(line: str) -> tuple[str, ...]:
    """Mode, size and name of a line of `ls -l`; the date is another process's and may differ by a minute."""
    mode, size, _month, _day, _time, *name = line.split()
    return mode, size, *name


def test_a_whole_file_comes_out_byte_by_byte(registry: DockerRegistry, home: Home) -> None:
    raw = registry.get("team/app/manifests/v1")
    done = subprocess.run(
        [*regfs_command(), "cat", f"{registry.address}/team/app/v1/manifest.json"],
        env=home.env,
        capture_output=True,
        check=True,
    )
    assert done.stdout == raw


def test_of_several_paths_one_that_fails_stops_nothing(registry: DockerRegistry, home: Home) -> None:
    base = f"{registry.address}/team/app"
    done = home.regfs("cat", f"{base}/v9/digest", f"{base}/v1/digest")
    assert done.returncode == 1
    assert done.stdout.startswith("sha256:")
    assert done.stderr.startswith(f"regfs: {base}/v9/digest: No such file or directory\n  ")
    listed = home.regfs("ls", f"{base}/v1", f"{base}/v9", f"{base}/nested")
    assert listed.returncode == 2
    names = "config.json\ndigest\nlayers\nmanifest.json\noci\nreferrers\nrootfs"
    assert listed.stdout == f"{base}/v1:\n{names}\n\n{base}/nested:\nn1\n"


def test_ls_costs_what_it_costs_on_a_mount(registry: DockerRegistry, home: Home) -> None:
    before = len(registry.requests())
    home.regfs("cat", f"{registry.address}/team/app/v1/manifest.json", check=True)
    asked = registry.requests()[before:]
    assert [(line.method, line.target) for line in asked] == [("GET", "/v2/team/app/manifests/v1")]


def test_json_listings_are_objects_with_stable_keys(registry: DockerRegistry, home: Home) -> None:
    done = home.regfs("ls", "--json", f"{registry.address}/team/app/v1", check=True)
    rows = json.loads(done.stdout)
    names = ["config.json", "digest", "layers", "manifest.json", "oci", "referrers", "rootfs"]
    assert [row["name"] for row in rows] == names
    assert set(rows[0]) == {"path", "name", "type", "mode", "size", "time"}
    assert rows[1] == {**rows[1], "type": "file", "mode": "0444", "size": 72}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0]["time"])
    links = json.loads(
        home.regfs("ls", "--json", f"{registry.address}/team/app/both/platforms", check=True).stdout
    )
    assert {row["type"] for row in links} == {"link"}
    assert all(row["target"].startswith("../../.digests/sha256-") for row in links)


def test_stat_shows_the_digest(registry: DockerRegistry, home: Home) -> None:
    digest = str(registry.tags("team/app")["v1"])
    path = f"{registry.address}/team/app/v1"
    (row,) = json.loads(home.regfs("stat", "--json", path, check=True).stdout)
    assert row["type"] == "folder"
    assert row["attributes"]["user.oci.digest"] == digest
    assert f"user.oci.digest = {digest}" in home.regfs("stat", path, check=True).stdout


def test_ref_without_a_mount(registry: DockerRegistry, home: Home) -> None:
    digest, base = registry.tags("team/app")["v1"], f"{registry.address}/team/app"
    by_tag = home.regfs("ref", f"{base}/v1/manifest.json", f"{base}/.tags/v1", base, check=True)
    assert by_tag.stdout.split() == [f"{base}:v1", f"{base}:v1", base]
    by_digest = home.regfs(
        "ref", "--digest", f"{base}/v1", f"{base}/.digests/{digest.file_name}/config.json", check=True
    )
    assert by_digest.stdout.split() == [f"{base}@{digest}", f"{base}@{digest}"]
    done = home.regfs("ref", "--digest", base)
    assert done.returncode == 1
    assert "no digest" in done.stderr


def test_ls_without_a_path_lists_the_registries(registry: DockerRegistry, home: Home) -> None:
    home.regfs("login", "--anonymous", "--name", "mine", registry.address, check=True)
    assert home.regfs("ls", check=True).stdout == "mine\n"
    assert home.regfs("ls", "mine", check=True).stdout == "library\nteam\n"
    assert home.regfs("ls", "mine/team/app/v1", check=True).stdout.split()[0] == "config.json"


def test_a_registry_that_is_down_is_said_within_the_deadline(home: Home) -> None:
    done = home.regfs("ls", f"127.0.0.1:{processes.free_port()}/team", timeout=40)
    assert done.returncode == 2
    assert "No route to host" in done.stderr
    assert "refused" in done.stderr


def test_ctrl_c_ends_it_at_once(home: Home) -> None:
    with _mute_server() as port:
        argv = [*regfs_command(), "ls", f"127.0.0.1:{port}/team"]
        process = subprocess.Popen(
            argv, env=home.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.wait_until(lambda: process.poll() is not None or _has_socket(process.pid, port), "it asks")
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in words


def test_cat_into_a_pipe_that_closes_ends_quietly(registry: DockerRegistry, home: Home) -> None:
    path = f"{registry.address}/team/app/v1/manifest.json"
    script = f"{' '.join(regfs_command())} cat {' '.join([path] * 2000)} | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{", "")
    assert done.returncode == 128 + signal.SIGPIPE


# ── deleting ──


def test_rm_deletes_that_tag_alone_and_says_in_which_way(registry: DockerRegistry, home: Home) -> None:
    before = registry.tags("team/app")
    done = home.regfs("rm", f"{registry.address}/team/app:v1", check=True)
    assert done.stdout == f"deleted {registry.address}/team/app:v1 ({before['v1']}) by a throw-away index\n"
    assert registry.tags("team/app") == {name: digest for name, digest in before.items() if name != "v1"}


def test_a_dry_run_sends_nothing_that_writes(registry: DockerRegistry, home: Home) -> None:
    before, asked = registry.tags("team/app"), len(registry.requests())
    done = home.regfs("rm", "--dry-run", f"{registry.address}/team/app:v1", check=True)
    assert done.stdout.startswith(f"would delete {registry.address}/team/app:v1 ({before['v1']})\n")
    assert registry.tags("team/app") == before
    assert {line.method for line in registry.requests()[asked:]} <= {"GET", "HEAD"}


@pytest.mark.parametrize(
    "reference", ["team/app", "team/app:", "team", "team/app@sha256:" + "0" * 64, "team/app:a/b"]
)
def test_what_names_no_tag_is_refused_and_nothing_is_asked(
    reference: str, registry: DockerRegistry, home: Home
) -> None:
    before = len(registry.requests())
    done = home.regfs("rm", f"{registry.address}/{reference}")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(registry.requests()) == before


def test_a_tag_that_is_not_there_is_said(registry: DockerRegistry, home: Home) -> None:
    done = home.regfs("rm", f"{registry.address}/team/app:v9", f"{registry.address}/team/app:v2")
    assert done.returncode == 1
    assert f"{registry.address}/team/app:v9: No such file or directory" in done.stderr
    assert done.stdout.startswith(f"deleted {registry.address}/team/app:v2 ")


def test_deletion_that_is_switched_off_is_said_with_the_setting(
    docker_registry: Registries, home: Home
) -> None:
    registry = docker_registry(delete=False)
    registry.lay_image("team/app", make_image("app"), ["v1"])
    done = home.regfs("rm", f"{registry.address}/team/app:v1")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr
    assert "storage.delete.enabled" in done.stderr
    assert "v1" in registry.tags("team/app")


# ── an OCI layout, which speaks no HTTP ──


def test_a_folder_of_oci_layouts_is_read_in_the_same_way(
    tmp_path: Path, registry: DockerRegistry, home: Home
) -> None:
    image = registry.push("team/small", "v1", make_image("small"))
    layout = tmp_path / "layouts" / "team" / "app"
    layout.parent.mkdir(parents=True)
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            registry.reference("team/small", "v1"),
            f"oci:{layout}:v1",
        ],
        check=True,
        capture_output=True,
    )
    base = f"oci:{tmp_path}/layouts"
    assert home.regfs("login", base, check=True).stdout.startswith(f"signed in to {base}")
    assert home.regfs("ls", f"{base}/team/app", check=True).stdout == "v1\n"
    assert home.regfs("cat", f"{base}/team/app/v1/digest", check=True).stdout == f"{image.digest}\n"
    assert "deleted" in home.regfs("rm", f"{base}/team/app:v1", check=True).stdout
    assert home.regfs("cat", f"{base}/team/app/v1/digest").returncode == 1


def _has_socket(pid: int, port: int) -> bool:
    suffix = f":{port:04X}"
    table = Path(f"/proc/{pid}/net/tcp")
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return False
    return any(fields[2].endswith(suffix) and fields[3] == "01" for fields in map(str.split, lines))


class _mute_server:  # noqa: N801 - used like a function
    """Accepts connections and never says a word."""

    def __enter__(self) -> int:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._socket.close()
