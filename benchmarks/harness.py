"""Time whole programs, two sides in turn, and judge their medians."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Side = Callable[[], float]
"""Does one side's work once and returns how long the measured part of it took, in seconds."""

MS: Final = 1000.0


@dataclass(frozen=True)
class Sample:
    """What one side took, in seconds, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        low, high = min(self.seconds), max(self.seconds)
        return f"{show(self.median)} ({show(low)} – {show(high)})"


@dataclass(frozen=True)
class Row:
    """One line of the results: what was measured on both sides, what comes of it, and what was aimed at."""

    what: str
    ours: str
    beside: str
    figure: str
    target: str
    met: bool


def run(argv: Sequence[str | Path], env: Mapping[str, str]) -> float:
    """Run a program to its end, its output thrown away, and return the seconds it took. RuntimeError if it fails.

    It is spawned without a fork of this process, so that what is timed is the program.
    """
    words = [os.fspath(word) for word in argv]
    program = _find(words[0], env)
    with tempfile.TemporaryFile() as errors:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        ]
        begin = time.perf_counter()
        pid = os.posix_spawn(program, words, dict(env), file_actions=actions)
        _, status = os.waitpid(pid, 0)
        took = time.perf_counter() - begin
        if status != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"{' '.join(words)[:200]}: exit {code}: {said[-2000:]}")
    return took


def in_turn(rounds: int, *sides: Side) -> tuple[Sample, ...]:
    """Run all sides once a round, beginning with another one each round, so that a drift of the machine hits all."""
    taken: list[list[float]] = [[] for _ in sides]
    for number in range(rounds):
        order = [(number + step) % len(sides) for step in range(len(sides))]
        for index in order:
            taken[index].append(sides[index]())
    return tuple(Sample(tuple(values)) for values in taken)


def at_most_times(what: str, ours: Sample, beside: Sample, limit: float) -> Row:
    """We may take at most ``limit`` times as long."""
    ratio = ours.median / beside.median
    return Row(what, str(ours), str(beside), f"{ratio:.2f} ×", f"≤ {limit:g} ×", ratio <= limit)


def faster(what: str, ours: Sample, beside: Sample, least: float) -> Row:
    """We have to be at least ``least`` times faster."""
    ratio = beside.median / ours.median
    return Row(what, str(ours), str(beside), f"{ratio:.1f} × faster", f"≥ {least:g} × faster", ratio >= least)


def at_most_over(what: str, ours: Sample, beside: Sample, limit: float) -> Row:
    """We may take at most ``limit`` seconds longer."""
    over = ours.median - beside.median
    return Row(what, str(ours), str(beside), f"{over * MS:+.0f} ms", f"≤ +{limit * MS:.0f} ms", over <= limit)


def within(what: str, ours: Sample, limit: float, reason: str) -> Row:
    """We may take at most ``limit`` seconds."""
    return Row(what, str(ours), "", show(ours.median), f"≤ {show(limit)} ({reason})", ours.median <= limit)


def below(what: str, mebibytes: float, limit: float) -> Row:
    """We may use less than ``limit`` MB of memory."""
    return Row(what, f"{mebibytes:.1f} MB", "", f"{mebibytes:.1f} MB", f"< {limit:g} MB", mebibytes < limit)


def show(seconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * MS:.1f} ms"


def _find(program: str, env: Mapping[str, str]) -> str:
    # Looked up before the clock starts: neither side's time includes a search of PATH.
    found = program if "/" in program else shutil.which(program, path=env["PATH"])
    if found is None:
        raise RuntimeError(f"not installed: {program}")
    return found
