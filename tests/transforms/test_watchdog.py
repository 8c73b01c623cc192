"""The watchdog ends a process whose work hangs, and no other."""

import subprocess
import sys
import threading

import pytest

from beam_serving.transforms import watchdog
from beam_serving.transforms.watchdog import EXIT_HUNG, Watchdog

# The file alone: importing its package would import Beam.
HANGING = f"""\
import importlib.util, threading
spec = importlib.util.spec_from_file_location("watchdog", {watchdog.__file__!r})
watchdog = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watchdog)
with watchdog.Watchdog(0.1).watch(): threading.Event().wait()
"""


def test_work_that_hangs_ends_the_process() -> None:
    command = [sys.executable, "-c", HANGING]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == EXIT_HUNG == 70
    assert ended.stderr == "an inference runs for more than 0.1 s: ending this worker\n"


def test_each_work_has_the_whole_time() -> None:
    dog = Watchdog(60)
    with dog.watch():
        first = dog.since
    assert dog.since is None, "between two works nothing is watched"
    with dog.watch():
        assert first is not None
        assert dog.since is not None
        assert dog.since > first
    dog.close()


def test_work_that_fails_is_not_watched_any_more() -> None:
    dog = Watchdog(60)
    with pytest.raises(ZeroDivisionError), dog.watch():
        raise ZeroDivisionError
    assert dog.since is None
    dog.close()


def test_a_closed_watchdog_watches_nothing() -> None:
    others = set(threading.enumerate())
    dog = Watchdog(60)
    (thread,) = set(threading.enumerate()) - others
    dog.close()
    thread.join(10)
    assert not thread.is_alive()
