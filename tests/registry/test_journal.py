"""The journal on disk: whole or not there, held while its writer lives, and nothing in it that is secret or wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from regfs.digest import Digest
from regfs.errors import Refused
from regfs.registry.journal import Entry, Journal

RAW = b'{"schemaVersion":2}\n\xff'


def an_entry(registry: str = "localhost:5000", **more: object) -> Entry:
    return Entry(
        registry=registry,
        repository="team/app",
        tag="v1",
        raw=RAW,
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest=str(Digest.of(RAW)),
        throw_away=b"{}",
        **more,  # type: ignore[arg-type]
    )


def left_by_a_killed_process(folder: Path, program: str = "") -> subprocess.CompletedProcess[bytes]:
    """Record an entry in a process of its own, which is killed then."""
    text = f"""
        import os, signal
        from pathlib import Path
        from regfs.digest import Digest
        from regfs.registry import journal
        raw = {RAW!r}
        entry = journal.Entry(registry="localhost:5000", repository="team/app", tag="v1", raw=raw,
            media_type="application/vnd.oci.image.manifest.v1+json", digest=str(Digest.of(raw)), throw_away=b"{{}}")
        die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        {program}
        journal.Journal(Path({str(folder)!r})).record(entry)
        die()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(text)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    return done


def test_what_a_killed_process_left_is_found_byte_for_byte(tmp_path: Path) -> None:
    left_by_a_killed_process(tmp_path / "state")
    (entry,), unreadable = Journal(tmp_path / "state").hold_leftovers("localhost:5000")
    assert (entry.raw, entry.tag, entry.throw_away) == (RAW, "v1", b"{}")
    assert unreadable == []


def test_an_entry_of_a_living_daemon_is_not_touched(tmp_path: Path) -> None:
    alive, other = Journal(tmp_path), Journal(tmp_path)
    entry = an_entry()
    alive.record(entry)
    assert other.hold_leftovers("localhost:5000") == ([], [])
    alive.release(entry)
    assert other.hold_leftovers("localhost:5000") == ([entry], [])
    assert alive.hold_leftovers("localhost:5000") == ([], []), "now the other has it"


def test_an_erased_entry_is_gone(tmp_path: Path) -> None:
    journal, entry = Journal(tmp_path), an_entry()
    journal.record(entry)
    journal.erase(entry)
    journal.erase(entry)
    assert list(tmp_path.iterdir()) == []


def test_another_registrys_entries_are_left_to_it(tmp_path: Path) -> None:
    journal, entry = Journal(tmp_path), an_entry("elsewhere.example")
    journal.record(entry)
    journal.release(entry)
    assert journal.hold_leftovers("localhost:5000") == ([], [])
    assert Journal(tmp_path).hold_leftovers("elsewhere.example") == ([entry], [])


def test_only_the_owner_can_read_the_journal(tmp_path: Path) -> None:
    journal, entry = Journal(tmp_path / "a" / "state"), an_entry()
    journal.record(entry)
    assert stat.S_IMODE((tmp_path / "a" / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE(journal.path(entry).stat().st_mode) == 0o600


@pytest.mark.parametrize("call", ["os.fsync", "os.rename"])
def test_a_process_killed_while_it_writes_leaves_no_entry(tmp_path: Path, call: str) -> None:
    patch = "journal.Path.rename = die" if call == "os.rename" else "os.fsync = die"
    (tmp_path / "state").mkdir()
    left_by_a_killed_process(tmp_path / "state", patch)
    journal = Journal(tmp_path / "state")
    assert journal.hold_leftovers("localhost:5000") == ([], [])
    (unfinished,) = (tmp_path / "state").iterdir()
    os.utime(unfinished, (0, 0))
    journal.hold_leftovers("localhost:5000")
    assert list((tmp_path / "state").iterdir()) == []


def test_file_and_folder_are_flushed_before_the_entry_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        names = [path.suffix for path in tmp_path.iterdir()]
        assert names == ([".unfinished"] if flushed[-1] == "file" else [".deletion"])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Journal(tmp_path).record(an_entry())
    assert flushed == ["file", "folder"]


def test_a_disk_that_is_full_means_that_nothing_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="No space left on device"):
        Journal(tmp_path).record(an_entry())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_means_that_nothing_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused):
        Journal(tmp_path / "file" / "state").record(an_entry())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:50],
        lambda text: b"",
        lambda text: b"[]",
        lambda text: text.replace(b'"team/app"', b'"../../app"'),
        lambda text: text.replace(b'"tag":"v1"', b'"tag":"../v1"'),
        lambda text: text.replace(b'"siblings":[]', b'"siblings":["a/b"]'),
        lambda text: text.replace(b'"version":1', b'"version":2'),
        lambda text: text.replace(b'"raw":"e', b'"raw":"f'),
        lambda text: text.replace(b'"digest":"sha256:', b'"digest":"md5:'),
        lambda text: text.replace(b'"id":"', b'"id":"x'),
    ],
)
def test_an_entry_that_is_damaged_is_named_and_never_acted_on(tmp_path: Path, damage: object) -> None:
    journal, entry = Journal(tmp_path), an_entry()
    journal.record(entry)
    journal.release(entry)
    path = journal.path(entry)
    before = path.read_bytes()
    path.write_bytes(damage(before))  # type: ignore[operator]
    assert path.read_bytes() != before
    entries, (line,) = journal.hold_leftovers("localhost:5000")
    assert entries == []
    assert str(path) in line
    assert path.exists()


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    journal, entry = Journal(tmp_path / "state"), an_entry()
    journal.record(entry)
    journal.release(entry)
    moved = journal.path(entry).rename(tmp_path / "elsewhere")
    journal.path(entry).symlink_to(moved)
    assert journal.hold_leftovers("localhost:5000") == ([], [])


def test_a_fact_about_a_registry_outlives_the_process(tmp_path: Path) -> None:
    Journal(tmp_path / "state").mark("takes-siblings", "localhost:5000")
    Journal(tmp_path / "state").mark("takes-siblings", "localhost:5000")
    journal = Journal(tmp_path / "state")
    assert journal.is_marked("takes-siblings", "localhost:5000")
    assert not journal.is_marked("takes-siblings", "localhost:5001")
    assert not journal.is_marked("other", "localhost:5000")
    assert not Journal(tmp_path / "absent").is_marked("takes-siblings", "localhost:5000")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    journal = Journal(tmp_path)
    for _ in range(5):
        entry = an_entry()
        journal.record(entry)
        journal.release(entry)
        for found in journal.hold_leftovers("localhost:5000")[0]:
            journal.erase(found)
        journal.hold_leftovers("localhost:5000")
        journal.mark("fact", "localhost:5000")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
