"""Run all benchmarks and write ``results.md``, or run those that are named and print what they find.

``python -m benchmarks [cat|ls|find|layers|image|rootfs|memory|startup]...``
"""

from __future__ import annotations

import argparse
import compileall
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import regfs
from benchmarks import cat, find, image, layers, ls, memory, report, rootfs, startup
from benchmarks.harness import Row
from benchmarks.stage import Stage

ALL: Final[dict[str, ModuleType]] = {
    "cat": cat,
    "ls": ls,
    "find": find,
    "layers": layers,
    "image": image,
    "rootfs": rootfs,
    "memory": memory,
    "startup": startup,
}
RESULTS: Final = Path(__file__).with_name("results.md")


def main() -> None:
    """Measure, and say what came of it. Missing a target is a result and no failure."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure regfs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(ALL)} (default: all)")
    names = parser.parse_args().names
    if unknown := set(names) - set(ALL):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    # As after an installation: what is timed is not the compiling of modules.
    compileall.compile_dir(Path(regfs.__file__).parent, quiet=1)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    load = os.getloadavg()[0]
    results = {ALL[name].TITLE: _measure(name) for name in names or ALL}
    text = report.page(results, load)
    if names:
        print(text)
    else:
        RESULTS.write_text(text)
        print(f"written to {RESULTS}")


def _measure(name: str) -> list[Row]:
    print(f"measuring: {name}", file=sys.stderr, flush=True)
    with Stage() as stage:
        rows: list[Row] = ALL[name].measure(stage)
    for row in rows:
        print(
            f"  {row.what}: {row.figure} ({row.target}{'' if row.met else ', missed'})",
            file=sys.stderr,
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
