"""The jars of job servers: each takes a minute to build, so they are shared with other runs and by parallel ones."""

import fcntl
import shutil
from pathlib import Path

from beam_serving.launch.portable.jar import Engine, find_or_build, find_or_build_guard
from beam_serving.models.store import cache_folder

KEPT = cache_folder()
"""The user's cache; that of the tests is another one."""


def take_kept() -> None:
    """Link the jars that are kept into the cache of the tests."""
    for jar in _jars(KEPT):
        own = cache_folder() / jar.relative_to(KEPT)
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.exists():
            own.symlink_to(jar)


def keep_built() -> None:
    """Move what was built into the user's cache, and link to it."""
    for jar in _jars(cache_folder()):
        if not jar.is_symlink():
            kept = KEPT / jar.relative_to(cache_folder())
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(jar, kept)
            jar.symlink_to(kept)


def jar_of(engine: Engine) -> Path:
    """Return the real jar of a job server, and see to the guard's; Maven builds both where no test run has before.

    One process builds while others wait for its jar.
    """
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        take_kept()
        find_or_build_guard()
        jar = find_or_build(engine, None)
        keep_built()
    return jar


def _jars(folder: Path) -> list[Path]:
    return [*folder.glob("*.jar"), *folder.glob("guard-*/guard.jar")]
