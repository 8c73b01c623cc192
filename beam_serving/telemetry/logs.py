"""One log format for the supervisor and its workers, and quiet libraries."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beam_serving.errors import printable


def configure_logging(level: str, who: str) -> None:
    """Log to standard error, each line with the time and who speaks; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter(f"%(asctime)s %(levelname)s [{who}] %(message)s"))
    handler.addFilter(_from_us)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("beam_serving").setLevel(level.upper())


@contextmanager
def own_logging(level: str, who: str) -> Iterator[None]:
    """Log as `configure_logging` says while the body runs, and then as before."""
    loggers = [logging.getLogger(), logging.getLogger("beam_serving")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    configure_logging(level, who)
    try:
        yield
    finally:
        for logger, was, handlers in before:
            logger.setLevel(was)
            logger.handlers[:] = handlers


class _OneLineFormatter(logging.Formatter):
    """A record is a line, whatever stands in it; the lines of a traceback are indented, so that none looks like one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatStack(stack_info))


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
    return record.name.startswith("beam_serving") or record.levelno >= logging.ERROR
