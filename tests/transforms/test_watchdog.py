"""The watchdog ends a process whose work hangs, and no other."""

import subprocess
import sys

from beam_serving.transforms import watchdog
from beam_serving.transforms.watchdog import EXIT_HUNG

# The file alone: importing its package would import Beam.
PROLOGUE = f"""\
import importlib.util, threading, time
spec = importlib.util.spec_from_file_location("watchdog", {watchdog.__file__!r})
watchdog = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watchdog)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + program], capture_output=True, text=True, check=False, timeout=30
    )


def test_work_that_hangs_ends_the_process() -> None:
    ended = run("with watchdog.Watchdog(0.1).watch(): threading.Event().wait()")
    assert ended.returncode == EXIT_HUNG == 70
    assert ended.stderr == "an inference runs for more than 0.1 s: ending this worker\n"


def test_work_that_ends_in_time_is_never_ended() -> None:
    program = """\
dog = watchdog.Watchdog(1.5)
give_up_at = time.monotonic() + 3
while time.monotonic() < give_up_at:
    with dog.watch():
        time.sleep(0.01)
"""
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_work_that_fails_is_not_watched_any_more() -> None:
    program = """\
dog = watchdog.Watchdog(0.1)
try:
    with dog.watch():
        raise ValueError
except ValueError:
    time.sleep(0.5)
"""
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_closed_watchdog_watches_nothing() -> None:
    program = """\
dog = watchdog.Watchdog(0.1)
dog.close()
with dog.watch():
    time.sleep(0.5)
"""
    ended = run(program)
    assert (ended.returncode, ended.stderr) == (0, "")
