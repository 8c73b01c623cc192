"""`python -m beam_serving`."""

import os
import sys


def _leave_current_directory() -> None:
    """Stop imports from the current directory, which `python -m` puts in front: a `numpy.py` there would be run.

    This package goes on to be found by its own path.
    """
    try:
        current = os.getcwd()
    except FileNotFoundError:
        return  # it is gone, and Python left it out
    if not sys.flags.safe_path and sys.path[:1] in ([""], [current]):
        del sys.path[0]


_leave_current_directory()

from beam_serving.cli.main import main  # noqa: E402 - not before that

sys.exit(main())
