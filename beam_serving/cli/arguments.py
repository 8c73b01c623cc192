"""The parser of every command line here, and what several of them take."""

import argparse
from typing import NoReturn

from beam_serving.errors import ConfigError

LONGEST_S = 10.0 * 365 * 86_400
"""Ten years, which stand for no limit at all."""


class Parser(argparse.ArgumentParser):
    """Answers a wrong argument as every other mistake of the operator: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError instead of printing the usage."""
        raise ConfigError(f"{message}; {self.prog} --help has examples")


def seconds(text: str) -> float:
    """Reads a time: the type of an argument.

    Raises:
        argparse.ArgumentTypeError: it is no number above 0, or longer than ten years.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= LONGEST_S:
        raise argparse.ArgumentTypeError(f"wants seconds, a number above 0, got {text!r}")
    return found
