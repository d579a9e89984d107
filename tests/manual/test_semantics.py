"""docs/semantics.md is true: each of its transcripts runs in a shell, in a real mount, and prints what the page prints."""

from __future__ import annotations

import errno
import getpass
import grp
import os
import pty
import re
import signal
import subprocess
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from regfs.cache.memory import DEFAULT_CAPACITY
from regfs.config import Settings
from regfs.fuse.errnos import ERRNOS
from regfs.image.members import MemberKind
from regfs.manifest import MAX_MANIFEST
from regfs.reference import fallback_tag
from regfs.registry.paging import MAX_LISTING, MAX_PAGES
from regfs.registry.referrers import MAX_REFERRERS
from regfs.testing.behaviour import Behaviour, TagDelete
from regfs.testing.fake import FakeRegistry
from regfs.testing.images import (
    Image,
    Pushable,
    make_artifact,
    make_image,
    make_index,
    make_referrers_index,
)
from regfs.tree.catalog import MAX_REPOSITORIES
from regfs.tree.errorlog import KEEP_LINES
from regfs.tree.ocilayout import MAX_MANIFESTS
from regfs.tree.taglists import MAX_TAGS
from regfs.wrapping import GuardedSource
from tests.support import central
from tests.support.archives import Item, archive, folder, hard, layered_image, link
from tests.support.mounts import Home, mounted, regfs_command
from tests.support.needs import need_programs
from tests.support.processes import free_port
from tests.support.registry import DockerRegistry, RegistryOptions

PAGE = Path(__file__).parents[2] / "docs" / "semantics.md"
FOLDER = "/mnt/registry"
REGISTRY = "localhost:5000"
TIMEOUT = 60

_BLOCK = re.compile(
    r"^(?:<!-- place: (?P<place>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")


# ── the page ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Step:
    """One command of a transcript, and the lines that it prints; ``...`` stands for anything in them."""

    command: str
    expected: str

    def matches(self, printed: str) -> bool:
        """Whether ``printed`` is what the page says: ``...`` is part of a line, alone in a line any number of lines."""
        lines = []
        for line in self.expected.splitlines():
            parts = map(re.escape, line.rstrip().split("..."))
            lines.append(r"(?:[^\n]*\n)*?" if line.strip() == "..." else r"[^\n]*".join(parts) + r"[ ]*\n")
        return re.fullmatch("".join(lines), printed) is not None


@dataclass(frozen=True)
class Transcript:
    """One block of the page: a session in one place."""

    line: int
    place: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"line {self.line}: {self.steps[0].command if self.steps else ''}"


def read_steps(text: str) -> Iterator[Step]:
    """The commands of a block (``$ command``, continued by ``> ``) with what stands below each."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, *rest = part.splitlines(keepends=True)
        while rest and rest[0].startswith("> "):
            command += rest.pop(0)[2:]
        yield Step(command.rstrip("\n"), "".join(rest))


def read_page(text: str) -> list[Transcript]:
    """The transcripts of a page, in order."""
    found = []
    for block in _BLOCK.finditer(text):
        if block["kind"] == "console":
            line = text.count("\n", 0, block.start()) + 1
            found.append(Transcript(line, block["place"] or "", tuple(read_steps(block["text"]))))
    return found


TRANSCRIPTS = read_page(PAGE.read_text())


# ── the places ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Place:
    """A mount, and how the page calls what has another name here."""

    folder: Path
    home: Home
    names: Mapping[str, str]

    def run(self, steps: tuple[Step, ...]) -> list[str]:
        """What each command prints on a terminal, in one shell, in the words of the page."""
        mark = f"-- {os.urandom(8).hex()} --"
        script = [f"cd {self.folder}"]
        for step in steps:
            script += [self.in_words_of_here(step.command), f"_status=$?; echo '{mark}'; (exit $_status)"]
        env = {
            **self.home.env,
            "PATH": f"{Path(regfs_command()[0]).parent}:{os.environ['PATH']}",
            "TZ": "UTC",
        }
        printed = run_on_a_terminal(["bash", "-c", "\n".join(script)], env)
        parts = self.in_words_of_the_page(printed).split(f"{mark}\n")
        assert len(parts) == len(steps) + 1, f"the shell ended early:\n{printed}"
        return parts[:-1]

    def in_words_of_here(self, text: str) -> str:
        for page, here in self.names.items():
            text = text.replace(page, here)
        return text

    def in_words_of_the_page(self, text: str) -> str:
        for page, here in reversed([*self.names.items()]):
            text = text.replace(here, page)
        user = f"{getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name} "
        return re.sub(
            r"^bash: line \d+: ", "bash: ", _COLOUR.sub("", text).replace(user, "me me "), flags=re.M
        )


def run_on_a_terminal(command: list[str], env: Mapping[str, str]) -> str:
    """Run a program whose outputs are a terminal of 100 columns, and give what it printed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=dict(env), start_new_session=True
    )
    os.close(theirs)
    timer = signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.alarm(TIMEOUT)
    printed = b""
    try:
        with suppress(OSError):  # how a terminal ends whose programs have all gone
            while data := os.read(ours, 65536):
                printed += data
        process.wait()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, timer)
        os.close(ours)
    assert process.returncode != -signal.SIGKILL, f"not done within {TIMEOUT} s:\n{printed.decode()}"
    return printed.decode(errors="replace").replace("\r\n", "\n").expandtabs()


@contextmanager
def mount_of(address: str, *flags: str, home: Home) -> Iterator[Place]:
    with mounted(*flags, address, home=home) as mount:
        folder = address.replace(":", "_")
        names = {FOLDER: str(mount.path), REGISTRY.replace(":", "_"): folder, REGISTRY: address}
        yield Place(mount.path, home, names)


def fill(push: Callable[[str, list[str], Image], object], push_index: Callable[[], object]) -> None:
    """What all registries of the page hold."""
    push("team/app", ["v1", "stable"], make_image("one"))
    push("team/app", ["v2"], make_image("two"))
    push("team/web", ["1.0", "cli"], make_image("web"))
    push("team/web/cli", ["2.0"], make_image("cli"))
    push("charts/nginx", ["9.1"], make_artifact())
    push_index()


def sign(push: Callable[[str, list[str], Pushable], object], image: Image) -> None:
    """An SBOM as oras attaches it, with the tag for registries that keep no list, and a signature of cosign's."""
    spdx = b'{"spdxVersion":"SPDX-2.3","packages":[{"name":"zlib"}]}'
    sbom = make_artifact("application/spdx+json", {"sbom.spdx.json": spdx}, subject=image.manifest)
    payload = b'{"critical":{"image":{"docker-manifest-digest":"%s"}}}' % str(image.digest).encode()
    tag = fallback_tag(image.digest)
    push("team/app", [tag], make_referrers_index([sbom]))
    push("team/app", [f"{tag}.sig"], make_artifact("", {"payload": payload}))


@contextmanager
def docker(folder: Path, *, delete: bool = True) -> Iterator[DockerRegistry]:
    need_programs("docker-registry", "skopeo")
    registry = DockerRegistry(folder, RegistryOptions(delete=delete)).start()
    try:
        fill(
            registry.push,
            lambda: registry.push("team/app", "multi", make_index(seed="multi", attestations=True)),
        )
        sign(lambda repository, tags, what: registry.lay_image(repository, what, tags), make_image("one"))
        yield registry
    finally:
        registry.remove()


@contextmanager
def fake(behaviour: Behaviour | None = None) -> Iterator[FakeRegistry]:
    with FakeRegistry(behaviour) as registry:
        fill(registry.push, lambda: registry.push("team/app", "multi", make_index(seed="multi")))
        sign(registry.push, make_image("one"))
        yield registry


Bench = tuple[Home, Path]


@contextmanager
def on_docker(bench: Bench, *flags: str, delete: bool = True) -> Iterator[Place]:
    home, folder = bench
    with (
        docker(folder / "registry", delete=delete) as registry,
        mount_of(registry.address, *flags, home=home) as place,
    ):
        yield place


@contextmanager
def on_fake(bench: Bench, *flags: str, behaviour: Behaviour | None = None) -> Iterator[Place]:
    with fake(behaviour) as registry, mount_of(registry.address, *flags, home=bench[0]) as place:
        yield place


@contextmanager
def several(bench: Bench) -> Iterator[Place]:
    """A folder a connection: ``work``, which is up, and ``lab``, where nothing listens."""
    home, folder = bench
    down = f"127.0.0.1:{free_port()}"
    with docker(folder / "registry") as registry:
        home.write_config(
            f'[registries.work]\naddress = "{registry.address}"\n[registries.lab]\naddress = "{down}"\n'
        )
        with mounted("-o", "retries=0", home=home) as mount:
            names = {FOLDER: str(mount.path), REGISTRY: registry.address, "lab.example:5000": down}
            yield Place(mount.path, home, names)


@contextmanager
def damaged(bench: Bench) -> Iterator[Place]:
    """One manifest and one config are not what their digests say."""
    with fake() as registry:
        one, two = make_image("one"), make_image("two")
        registry.plant(
            "team/app", "v2", one.manifest.raw, headers=[("Docker-Content-Digest", str(two.digest))]
        )
        registry.corrupt_blob("team/app", one.config.digest, b"x" * len(one.config.raw))
        with mount_of(registry.address, home=bench[0]) as place:
            yield place


@contextmanager
def stalled(bench: Bench) -> Iterator[Place]:
    """The registry goes silent once ``team/app/v1`` was read and ``team`` listed; calls have two seconds."""
    with (
        fake() as registry,
        mount_of(registry.address, "-o", "call_deadline=2", "--ttl", "60", home=bench[0]) as place,
    ):
        (place.folder / "team/app/v1/manifest.json").read_bytes()
        os.listdir(place.folder / "team/app")  # noqa: PTH208  # as `ls` does
        gate = registry.stall()
        yield place
        gate.open()


@contextmanager
def on_central(bench: Bench) -> Iterator[Place]:
    """A registry that is listed namespace by namespace and counts its manifests; three may be fetched."""
    central.write_plugin(bench[0])
    with mount_of(central.ADDRESS, "--ttl", "60", home=bench[0]) as place:
        yield place


@contextmanager
def on_an_image(bench: Bench) -> Iterator[Place]:
    """An image of two layers as ``team/app:v1``, with something of everything."""
    lower = [
        folder(b"etc"),
        Item(b"etc/os-release", data=b"ID=example\n"),
        Item(b"etc/default.conf", data=b"old\n"),
        folder(b"usr/bin"),
        Item(b"usr/bin/tool", data=b"#!/bin/sh\n", mode=0o4755),
        link(b"bin", b"/usr/bin"),
        Item(b"dev/null", MemberKind.CHARACTER_DEVICE, device=(1, 3)),
    ]
    upper = [
        Item(b"etc/.wh.default.conf"),
        Item(b"etc/app.conf", data=b"new\n"),
        hard(b"usr/bin/alias", b"usr/bin/tool"),
        link(b"app/link", b"../../../etc/os-release"),
    ]
    with FakeRegistry() as registry:
        registry.push("team/app", "v1", layered_image([archive(lower), archive(upper)]))
        with mount_of(registry.address, home=bench[0]) as place:
            yield place


PLACES: Mapping[str, Callable[[Bench], AbstractContextManager[Place]]] = {
    "an image of two layers": on_an_image,
    "a registry": lambda bench: on_docker(bench, "--ttl", "60"),
    "a registry, --rw": lambda bench: on_docker(bench, "--rw", "--ttl", "2"),
    "a registry, --rw, deletion off": lambda bench: on_docker(bench, "--rw", delete=False),
    "a registry, --rw, tag_delete=native": lambda bench: on_docker(bench, "--rw", "-o", "tag_delete=native"),
    "a registry, only=team/a*": lambda bench: on_docker(bench, "--ttl", "60", "-o", "only=team/a*"),
    "a registry that deletes tags, --rw": lambda bench: on_fake(
        bench, "--rw", behaviour=Behaviour(tag_delete=TagDelete.ACCEPTED)
    ),
    "a registry that may not be listed": lambda bench: on_fake(
        bench, behaviour=Behaviour(catalog_status=401)
    ),
    "a central registry": on_central,
    "several registries": several,
    "a damaged registry": damaged,
    "a stalled registry": stalled,
}


# ── the tests ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=str)
def test_a_transcript_prints_what_the_page_prints(transcript: Transcript, home: Home, tmp_path: Path) -> None:
    need_programs("bash", "getfattr", "jq")
    with PLACES[transcript.place]((home, tmp_path)) as place:
        printed = list(zip(transcript.steps, place.run(transcript.steps), strict=True))
    session = "".join(f"$ {step.command}\n{said}" for step, said in printed)
    wrong = [step.command for step, said in printed if not step.matches(said)]
    assert wrong == [], f"\n{session}"


def test_every_transcript_has_a_place_and_every_place_a_transcript() -> None:
    assert {transcript.place for transcript in TRANSCRIPTS} == PLACES.keys()


def test_every_transcript_shows_something_printed() -> None:
    for transcript in TRANSCRIPTS:
        assert any(step.expected for step in transcript.steps), transcript


def test_the_table_of_errors_is_the_one_that_programs_meet() -> None:
    section = PAGE.read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in row.split("|")[1:3]]
        for row in section.splitlines()
        if row.startswith("| E")
    ]
    assert dict(rows) == {_name(n): os.strerror(n) for n in ERRNOS.values()}


def test_the_limits_are_those_of_the_code() -> None:
    section = PAGE.read_text().partition("\n## Limits\n")[2]
    rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in section.splitlines() if "|" in row][2:]
    assert dict(rows) == {
        "a manifest, a config": f"{MAX_MANIFEST >> 20} MiB",
        "a page of a listing": f"{MAX_LISTING >> 20} MiB",
        "tags of a repository": f"{MAX_TAGS:,}",
        "repositories of a registry": f"{MAX_REPOSITORIES:,}",
        "pages of a listing": f"{MAX_PAGES:,}",
        "what refers to one manifest": f"{MAX_REFERRERS:,}",
        "manifests in one OCI layout": f"{MAX_MANIFESTS:,}",
        "requests under way to a registry": f"{Settings().max_requests} (`-o max_requests=`)",
        "calls under way to a registry": str(GuardedSource.IN_FLIGHT),
        "kept manifests and configs": f"{DEFAULT_CAPACITY >> 20} MiB of memory",
        "lines in `.regfs/errors`": str(KEEP_LINES),
    }


def _name(number: int) -> str:
    return "ENOTSUP" if number == errno.ENOTSUP else errno.errorcode[number]


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("v1  v2\n", "v1  v2\n", True),
        ("v1  v2\n", "v1  v3\n", False),
        ("v1\n", "v1\nv2\n", False),
        ("v1\n", "", False),
        ("", "oops\n", False),
        ("sha256:...\n", "sha256:0a\n", True),
        ("sha256:...\n", "sha256:0a\nmore\n", False),
        ("a ... c\n", "a b\nb c\n", False),
        ("a\n...\nb\n", "a\nx\ny\nb\n", True),
        ("a\n...\nb\n", "a\nx\ny\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_a_difference_between_page_and_terminal_is_found(expected: str, printed: str, same: bool) -> None:
    assert Step("command", expected).matches(printed) is same


def test_a_page_is_read_to_its_commands() -> None:
    page = "words\n\n<!-- place: here -->\n```console\n$ one \\\n>   more\nout\n\nput\n$ two\n```\n\n```\n$ no\n```\n"
    steps = (Step("one \\\n  more", "out\n\nput\n"), Step("two", ""))
    assert read_page(page) == [Transcript(3, "here", steps)]
