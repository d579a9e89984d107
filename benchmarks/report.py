"""The results as a page: ratios, targets, and the facts of the machine they were taken on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.harness import Row

_HEAD: Final = """\
# Benchmarks

Written by `make bench`. Whole programs are timed, from their start to their end, both sides in turn in the same run;
the figures are medians, with the smallest and the largest in brackets. Cold means a fresh mount, whose own start is not
in the figure; warm means that the same was done before on that mount. "Behind 20 ms" is a relay that holds back all
bytes for 10 ms each way. The registry is Docker's own, in a folder on disk; where pages are wanted, which it does not
give, it is a small server with answers made beforehand.
"""


def page(results: Mapping[str, Sequence[Row]], load: float) -> str:
    """The whole page: a table for each title of ``results``. ``load`` is the machine's load average before them."""
    parts = [_HEAD, _facts(load), *(_table(title, rows) for title, rows in results.items())]
    missed = [row for rows in results.values() for row in rows if not row.met]
    if missed:
        lines = [f"- {row.what}: {row.figure}, aimed at {row.target}" for row in missed]
        parts.append("\n".join(["## Missed", "", *lines]) + "\n")
    return "\n".join(parts)


def _table(title: str, rows: Sequence[Row]) -> str:
    lines = ["| what | regfs | beside | comes to | target | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = (
            row.what,
            row.ours,
            row.beside or "–",
            row.figure,
            row.target,
            "yes" if row.met else "**no**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"## {title}", "", *lines]) + "\n"


def _facts(load: float) -> str:
    facts = {
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load before the run": f"{load:.1f} (what else ran then; idle is 0)",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in ("regfs", "pyfuse3", "trio", "httpx")),
        "FUSE": _first_line("fusermount3", "--version"),
        "beside": ", ".join(
            (_first_line("skopeo", "--version"), _first_line("curl", "--version"), _registry_version())
        ),
    }
    return (
        "\n".join(["| machine | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items())])
        + "\n"
    )


def _cpu() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return match[1].strip() if match else platform.machine()


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.sub(r" \(.*", "", (done.stdout or done.stderr).splitlines()[0])


def _registry_version() -> str:
    match = re.search(r"\d[\w.+]*$", _first_line("docker-registry", "--version"))
    return f"docker-registry {match[0] if match else 'of unknown version'}"
