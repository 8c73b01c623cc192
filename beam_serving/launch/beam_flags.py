"""Flags of Apache Beam on our command line: checked before anything starts, since Beam drops what it does not know."""

import argparse
import difflib
from collections.abc import Sequence

from beam_serving.errors import ConfigError


def check_beam_flags(arguments: Sequence[str], own_flags: Sequence[str], runner_flags: Sequence[str] = ()) -> None:
    """Refuse flags that neither we nor Beam know, which Beam itself would drop with a warning.

    `runner_flags` are those that only the runner's own side knows; each takes a value.

    Raises:
        ConfigError: a flag is unknown, or would lose records.
    """
    if not arguments:
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        add = getattr(options, "_add_argparse_args", None)
        if add is not None:
            _add_once(parser, add)
    for flag in set(runner_flags) - set(parser._option_string_actions):
        parser.add_argument(flag)
    known = set(parser._option_string_actions)
    flags = [argument.split("=", 1)[0] for argument in arguments if argument.startswith("-")]
    for flag in flags:
        if flag in own_flags:
            raise ConfigError(f"{flag} is ours, and stands behind --; put it in front")
        if flag not in known:
            close = difflib.get_close_matches(flag, [*own_flags, *sorted(known)], n=1)
            hint = f"; did you mean {close[0]}?" if close else "; --help lists ours, Beam's documentation the rest"
            raise ConfigError(f"unknown flag {flag}{hint}")
    try:
        parsed, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as err:
        raise ConfigError(str(err)) from err
    if rest:
        raise ConfigError(f"argument {rest[0]!r} belongs to no flag")
    if getattr(parsed, "direct_running_mode", None) not in (None, "in_memory"):
        raise ConfigError("--direct_running_mode would give one source to several processes; use --workers N")
    if getattr(parsed, "direct_num_workers", 1) != 1:
        raise ConfigError("--direct_num_workers would lose records of an endless source; use --workers N")


def _add_once(parser: argparse.ArgumentParser, add: object) -> None:
    """Add the flags of one of Beam's option classes; several classes declare the same flag."""
    from apache_beam.options.pipeline_options import _BeamArgumentParser

    part = _BeamArgumentParser(add_help=False)
    add(part)  # type: ignore[operator]
    for action in part._actions:
        if not set(action.option_strings) & set(parser._option_string_actions):
            parser._add_action(action)
