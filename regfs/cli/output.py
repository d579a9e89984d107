"""Standard output: bytes, lines, tables and JSON, and what becomes of a reader that has gone."""

from __future__ import annotations

import sys
from collections.abc import Sequence


class ReaderGone(Exception):
    """Whoever read our standard output has closed it: `regfs cat … | head -1`. Ends the command quietly."""


class OutputFailed(Exception):
    """Standard output takes no more: a full disk. The text is the system's reason."""


def emit(data: bytes) -> None:
    """Write bytes to standard output. Raises ReaderGone and OutputFailed."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        raise OutputFailed(error.strerror) from error


def line(text: str) -> None:
    """Write one line of text; a name that is no text comes out as the bytes it is."""
    emit(f"{text}\n".encode(errors="surrogateescape"))


def as_json(value: object) -> None:
    """Write a value as indented JSON, for people and for jq."""
    import json

    line(json.dumps(value, indent=2, ensure_ascii=True))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows under upper-case heads, each column as wide as it needs; the last one is not padded."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        line("  ".join([*cells, row[-1]]).rstrip())
