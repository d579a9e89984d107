"""Logging for the daemon and the commands: every line passes the redaction, exceptions' texts included."""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from regfs.errors import ConfigError
from regfs.redaction import redact, register_secret

__all__ = ["RedactingFormatter", "redact", "register_secret", "set_up"]

SYSLOG_SOCKET: Final = Path("/dev/log")

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class RedactingFormatter(logging.Formatter):
    """Formats a record, then blots out secrets in all of it: message, arguments, exception, stack.

    What a registry said cannot forge a line or steer a terminal: control characters are spelled out.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The whole text of a record."""
        return _CONTROL.sub(_spelled, redact(super().format(record)))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The message on one line; a traceback follows on its own."""
        return super().formatMessage(record).replace("\n", "\\n")


class JournalFormatter(RedactingFormatter):
    """For systemd's journal, which keeps the time itself and reads the priority from ``<N>`` (sd-daemon(3))."""

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, with its priority before each line."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).split("\n"))


def set_up(
    verbose: int, log_file: Path | None = None, *, daemon: bool = False, deletions: bool = False
) -> None:
    """Send the log to ``log_file`` (made 0600, reopened when rotated away), else to stderr.

    A ``daemon``, whose stderr nobody reads, logs to the system log where there is no file. ``verbose``: 0 warnings,
    1 what regfs does, 2 its details, 3 the libraries' too; ``deletions``: each deleted tag too, at any verbosity. Replaces an earlier set-up. ConfigError: the file can't
    be written.
    """
    handler = _handler(log_file, daemon=daemon)
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, RedactingFormatter):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 2 else logging.WARNING)
    logging.getLogger("regfs.deletions").setLevel(logging.INFO if deletions else logging.NOTSET)
    logging.getLogger("pyfuse3").addFilter(_is_no_late_reply)
    logging.getLogger("regfs").setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    logging.captureWarnings(capture=True)
    # logging's own failures print the record and its arguments as they are.
    logging.raiseExceptions = False
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _is_no_late_reply(record: logging.LogRecord) -> bool:
    """False for pyfuse3's word that a mount was taken away while an answer was on its way: nothing is wrong then."""
    text = record.getMessage()
    return not ("fuse_reply_" in text and "No such file or directory" in text)


def _handler(log_file: Path | None, *, daemon: bool) -> logging.Handler:
    if log_file is not None:
        return _formatted(_file_handler(log_file), RedactingFormatter(_FORMAT))
    if daemon and SYSLOG_SOCKET.is_socket():
        syslog = logging.handlers.SysLogHandler(str(SYSLOG_SOCKET), logging.handlers.SysLogHandler.LOG_DAEMON)
        syslog.ident = f"regfs[{os.getpid()}]: "
        return _formatted(syslog, RedactingFormatter("%(name)s: %(message)s"))
    formatter = JournalFormatter() if _is_journal(sys.stderr) else RedactingFormatter(_FORMAT)
    return _formatted(logging.StreamHandler(sys.stderr), formatter)


def _formatted(handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
    handler.setFormatter(formatter)
    return handler


def _file_handler(path: Path) -> logging.Handler:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return logging.handlers.WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"the log file {path} cannot be written: {error.strerror}") from error


def _is_journal(stream: TextIO) -> bool:
    """Whether systemd connected this very stream to its journal: JOURNAL_STREAM is inherited by all below."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (str(stat.st_dev), str(stat.st_ino)) == (device, inode)


def _spelled(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("regfs").critical("uncaught error", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is not None:
        _log_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
