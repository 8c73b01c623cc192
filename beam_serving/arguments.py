"""The parser of every command line here."""

import argparse
from typing import NoReturn

from beam_serving.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Answers a wrong argument as every other mistake of the operator: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError instead of printing the usage."""
        raise ConfigError(f"{message}; {self.prog} --help has examples")
