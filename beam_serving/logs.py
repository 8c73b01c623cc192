"""One log format for the supervisor and its workers, and quiet libraries."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NOISY = ("apache_beam", "root")


def configure_logging(level: str, who: str) -> None:
    """Logs to standard error, each line with the time and who speaks; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s [{who}] %(message)s"))
    handler.addFilter(_from_us)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("beam_serving").setLevel(level.upper())


@contextmanager
def beam_is_quiet() -> Iterator[None]:
    """Keeps what Beam logs of an error, tracebacks mostly, off the screen of an operator who gets one line of it."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _from_us(record: logging.LogRecord) -> bool:
    return record.name.startswith("beam_serving") or record.levelno >= logging.ERROR
