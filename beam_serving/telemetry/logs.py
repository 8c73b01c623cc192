"""One log for the supervisor and its workers: lines for people or JSON for programs, and quiet libraries.

A log file is followed by its name: who has renamed it, as logrotate does, finds a new one in its place. A line about a
request is written once for its kind and minute, and then how many more there were of it.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_serving.errors import printable
from beam_serving.telemetry.periodic import PeriodicThread

if TYPE_CHECKING:
    from beam_serving.records import Origin

FORMATS = ("text", "json")
_EVERY_S = 60.0
_MOST_KINDS = 100
_REST = "other kinds"
_DETAIL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\d.]*\d""")
"""What differs between two messages of one kind: names in quotation marks, and numbers."""


class LogOptions(NamedTuple):
    """How a process logs.

    Attributes:
        level: debug, info, warning or error.
        format: one of `FORMATS`.
        file: where to, standard error where it is empty.
    """

    level: str = "info"
    format: str = "text"
    file: str = ""


BY_DEFAULT = LogOptions()


def configure_logging(options: LogOptions, who: str) -> None:
    """Log to standard error or a file, each line with the time and who speaks; libraries only from warnings on.

    Args:
        options: how; standard error itself goes into the file too, for what is no log, as the last words of a library.
        who: of the processes of a service.

    Raises:
        OSError: the file cannot be opened.
    """
    handler = _Handler(options.file)
    handler.setFormatter(_JsonFormatter(who) if options.format == "json" else _LineFormatter(who))
    handler.addFilter(_from_us)
    handler.addFilter(handler.repeats)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("beam_serving").setLevel(options.level.upper())
    # What Python itself would print has the form of a line too.
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda died: _log_uncaught(died.exc_type, died.exc_value, died.exc_traceback)


def _log_uncaught(kind: type[BaseException], err: BaseException | None, trace: Any) -> None:
    if err is not None and issubclass(kind, Exception):
        logging.getLogger(__name__).error("this ends a thread or the process: %s", err, exc_info=(kind, err, trace))


@contextmanager
def own_logging(options: LogOptions, who: str) -> Iterator[None]:
    """Log as `configure_logging` says while the body runs, and then as before."""
    loggers = [logging.getLogger(), logging.getLogger("beam_serving")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook
    captures = warnings.showwarning.__module__ == logging.__name__
    configure_logging(options, who)
    try:
        yield
    finally:
        sys.excepthook, threading.excepthook = hooks
        logging.captureWarnings(captures)
        for logger, was, handlers in before:
            logger.setLevel(was)
            logger.handlers[:] = handlers


def reopen_log() -> None:
    """Open the log file anew where it has been renamed; each process does so too before it writes its next line."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            try:
                handler.follow()
            except OSError:
                continue  # the next line that is written says so, and each one tries again


def logs_json() -> bool:
    """Return whether this process logs JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


def of_request(origin: Origin | None = None) -> dict[str, Any]:
    """Return what a line about a request has beside its text, for `extra`: such a line may come once for each request.

    Args:
        origin: of the request; None where it is not known.
    """
    if origin is None:
        return {"request": {}}
    given = {"uri": origin.uri, "request_id": origin.request_id, "stream": origin.stream, "entry_id": origin.entry_id}
    return {"request": {name: value.decode(errors="replace")[:1000] for name, value in given.items() if value}}


class _Handler(logging.StreamHandler[Any]):
    """Writes to standard error, which is the log file where there is one; `repeats` are its held lines."""

    def __init__(self, path: str) -> None:
        if sys.stderr is None:  # whoever started this process has closed it
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as this process
        super().__init__(sys.stderr)
        self._lost = False
        self.repeats = _Repeats(self.handle)
        self._path = path
        self.follow()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.follow()
        except OSError as err:
            if not self._lost:
                self._lost = True
                words = "the log file %s cannot be opened again: %s"
                lost = logging.LogRecord(__name__, logging.ERROR, "", 0, words, (self._path, err), None)
                super().emit(lost)
        else:
            self._lost = False
        super().emit(record)

    def follow(self) -> None:
        """Let standard error be the file of that name.

        Raises:
            OSError: it cannot be opened.
        """
        if not self._path or _is_open_as(self._path, sys.stderr.fileno()):
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.dup2(descriptor, sys.stderr.fileno())
        os.close(descriptor)

    def close(self) -> None:
        self.repeats.close()
        super().close()


def _is_open_as(path: str, descriptor: int) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return stat.S_ISREG(opened.st_mode) and (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


class _Repeats(logging.Filter):
    """Lets the first line of a kind pass, holds those of the next minute back, and then says how many these were.

    Args:
        emit: takes the line with the number.
        clock: gives seconds.
    """

    def __init__(
        self, emit: Callable[[logging.LogRecord], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._emit = emit
        self._clock = clock
        self._held: dict[object, _Kind] = {}
        self._lock = threading.Lock()
        self._thread: PeriodicThread | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request") or hasattr(record, "repeated"):
            return True
        kind: object = (record.name, record.levelno, _DETAIL.sub("*", record.getMessage())[:200])
        with self._lock:
            if kind not in self._held and len(self._held) >= _MOST_KINDS:
                kind = _REST
            held = self._held.get(kind)
            if held is None:
                self._held[kind] = _Kind(self._clock() + _EVERY_S)
                return True
            held.count += 1
            held.last = record
            if self._thread is None:
                self._thread = PeriodicThread("log", _EVERY_S / 4, self.tell)
            return False

    def tell(self) -> None:
        """Write the numbers of the kinds whose minute is over, and forget these."""
        self._tell(self._clock())

    def close(self) -> None:
        """Write what is held."""
        if self._thread is not None:
            self._thread.close(0.0)
        self._tell(float("inf"))

    def _tell(self, now: float) -> None:
        with self._lock:
            over = [kind for kind, held in self._held.items() if held.until <= now]
            held = [self._held.pop(kind) for kind in over]
        for one in held:
            if one.last is not None:
                record = copy.copy(one.last)
                record.repeated = one.count
                self._emit(record)


class _Kind:
    """What is held back of one kind of line."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.last: logging.LogRecord | None = None


class _LineFormatter(logging.Formatter):
    """A record is a line, whatever stands in it; the lines of a traceback are indented, so that none looks like one."""

    def __init__(self, who: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s [{who}] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        more = getattr(record, "repeated", 0)
        return printable(super().formatMessage(record) + (f" ({more} more like this within a minute)" if more else ""))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatStack(stack_info))


class _JsonFormatter(logging.Formatter):
    """A record is one object of JSON: time in UTC, level, process, message; of a request its names; a traceback."""

    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        about: dict[str, Any] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "process": self._who,
            "message": record.getMessage(),
        }
        request: Mapping[str, str] = getattr(record, "request", {})
        about |= request
        if more := getattr(record, "repeated", 0):
            about["repeated"] = more
        if record.exc_info:
            about["exception"] = self.formatException(record.exc_info)
        return json.dumps(about)


def _indented(text: str) -> str:
    return "\n".join(f"  {printable(line)}" for line in text.split("\n"))


@contextmanager
def beam_is_quiet() -> Iterator[None]:
    """Keep what Beam logs of an error, tracebacks mostly, off the screen of an operator who gets one line of it."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _from_us(record: logging.LogRecord) -> bool:
    return record.name.startswith(("beam_serving", "py.warnings")) or record.levelno >= logging.ERROR
