"""A process that can read, compute and answer, and nothing else: what loads a model for the first time runs in it.

    python -P -m beam_serving.models.trial.sandbox MODE WRITABLE MODEL MODULE ARGUMENT ...

runs a module of Python after it has given up, for itself and all its children and for good,

- writing, making, renaming and removing files, but for the folders WRITABLE (separated by `:`): Landlock(7), Linux 5.13
- sockets of any kind, by which networks and other services are reached, and changing the rights, owners and attributes
  of files: seccomp(2). `io_uring` could go around it, so that it is given up too

Neither needs rights, nor a namespace. MODE is `required` where both must be, or `auto`, which takes what there is and
puts it into the environment as BEAM_SERVING_SANDBOX. Of MODEL, a folder whose files are memory of the parent process,
which Landlock keeps apart, the files are opened before and found in the first of WRITABLE, in `model`; "" is none.
It imports nothing but Python itself, so that no thread is there before.
"""

import ctypes
import os
import platform
import re
import runpy
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FULL = "no network, no writes"
STATE = "BEAM_SERVING_SANDBOX"
EXIT_NONE = 86
"""The exit code where the sandbox is required and cannot be."""
_MODEL = "model"

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_CAPABILITIES, _SEE_OTHERS = 0x20080522, 1 << 19 | 1 << 21 | 1 << 38
"""The version of the call, and CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON."""
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_RULE_BENEATH = 1
_WRITE_FILE, _REMOVE_AND_MAKE, _REFER, _TRUNCATE = 1 << 1, 0x1FF0, 1 << 13, 1 << 14
_CONNECT_AND_BIND_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3
_DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/nvidia*",
    "/dev/dri",
    "/dev/kfd",
)
_CALLS: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, (41, 90, 91, 268, 92, 93, 94, 260, 188, 189, 190, 197, 198, 199)),
    "aarch64": (0xC00000B7, (198, 52, 53, 54, 55, 5, 6, 7, 14, 15, 16)),
}
"""By machine: its name for the kernel, and the numbers of `socket`, and of the calls chmod, chown, setxattr and kin."""
_CALLS_OF_ALL = (425, 452, 463, 466)
"""Of io_uring_setup, fchmodat2, setxattrat and removexattrat."""
_X32 = 0x40000000
_SECRETS = re.compile(r"BEAM_SERVING_\w*(SECRET|SALT|PASSWORD|TOKEN|KEY)\w*|AWS_\w+|\w*_(TOKEN|PASSWORD|SECRET)")


def command(mode: str, writable: Sequence[Path], module: str, *arguments: str, model: Path | None = None) -> list[str]:
    """Return the command that runs a module: in the sandbox, unless the mode is `off`.

    Args:
        mode: `auto`, `required` or `off`.
        writable: the folders that it may write into; the first one is its own, for temporary files too.
        module: the module.
        arguments: what it is given.
        model: a folder of files in memory.
    """
    if mode == "off":
        return [sys.executable, "-P", "-m", module, *arguments]
    folders = ":".join(map(str, writable))
    return [sys.executable, "-P", "-m", __name__, mode, folders, str(model or ""), module, *arguments]


def place_of(model: Path, writable: Path) -> Path:
    """Return the folder where the files of a folder in memory are found inside."""
    return writable / _MODEL if model.is_dir() else model


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what a model has no business with."""
    return {name: value for name, value in environment.items() if not _SECRETS.fullmatch(name)}


def enter(writable: Sequence[Path]) -> str:
    """Give up what this process may do; return what was given up, for a person."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return f"none: {sys.platform} has no Landlock and no seccomp"
    _give_up_sight_of_others(libc)
    given_up = [
        what
        for what, is_given_up in (
            ("no network", _give_up_sockets(libc)),
            ("no writes", _give_up_writes(libc, writable)),
        )
        if is_given_up
    ]
    return ", ".join(given_up) or f"none: Linux {platform.release()} lets this process give up nothing"


def _give_up_sight_of_others(libc: ctypes.CDLL) -> None:
    """Give up what lets root see into other processes in spite of Landlock: the environment of the service."""
    header, rights = struct.pack("=Ii", _CAPABILITIES, 0), ctypes.create_string_buffer(24)
    if libc.capget(header, rights) == 0:
        effective, permitted, inherited, *more = struct.unpack("=6I", rights.raw)
        low, high = ~_SEE_OTHERS & 0xFFFFFFFF, ~(_SEE_OTHERS >> 32) & 0xFFFFFFFF
        kept = [one & low for one in (effective, permitted, inherited)] + [one & high for one in more]
        libc.capset(header, struct.pack("=6I", *kept))


def _give_up_writes(libc: ctypes.CDLL, writable: Sequence[Path]) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    files = _WRITE_FILE | _REMOVE_AND_MAKE | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    rights = [files] + [_CONNECT_AND_BIND_TCP] * (version >= 4) + [_ABSTRACT_SOCKETS_AND_SIGNALS] * (version >= 6)
    packed = struct.pack(f"={len(rights)}Q", *rights)
    rules = libc.syscall(_LANDLOCK_CREATE, packed, ctypes.c_size_t(len(packed)), 0)
    if rules < 0:
        return False
    try:
        for folder in writable:
            _allow(libc, rules, folder, files)
        for pattern in _DEVICES:
            for device in Path("/").glob(pattern[1:]):
                _allow(libc, rules, device, _WRITE_FILE)
        # Before version 2 nothing may be moved from one folder to another, before 3 files may be cut off.
        return bool(libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0 and version >= 3)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, place)
        if libc.syscall(_LANDLOCK_ADD, rules, _RULE_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), f"{path} cannot be made writable")
    finally:
        os.close(place)


def _give_up_sockets(libc: ctypes.CDLL) -> bool:
    """Let these calls fail with EACCES, and end what calls the kernel as another machine would."""
    if platform.machine() not in _CALLS:
        return False
    machine, calls = _CALLS[platform.machine()]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000 | 13
    program = [
        *((load, 0, 0, 4), (equal, 1, 0, machine), (give, 0, 0, kill)),
        *((load, 0, 0, 0), (at_least, 0, 1, _X32), (give, 0, 0, kill)),
    ]
    refused = (*calls, *_CALLS_OF_ALL)
    for place, call in enumerate(refused):
        program.append((equal, len(refused) - place, 0, call))
    program += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, whole, 0, 0) == 0)


def _open_memory(model: Path, target: Path) -> None:
    """Open files that are memory of the parent process and link to them; other files are linked to where they are."""
    for path in sorted(model.rglob("*")):
        place = target / path.relative_to(model)
        if path.is_dir():
            continue
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_memory = path.is_symlink() and re.match(r"/proc/\d+/fd/", os.readlink(path))
        place.symlink_to(f"/proc/{os.getpid()}/fd/{os.open(path, os.O_RDONLY)}" if is_memory else path)


def main(mode: str, folders: str, model: str, module: str, *arguments: str) -> None:
    """Enter the sandbox and run the module; see the top of this file."""
    writable = [Path(folder) for folder in folders.split(":")]
    if model:
        _open_memory(Path(model), writable[0] / _MODEL)
    temporary = writable[0] / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    for name in ("TMPDIR", "KERAS_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR"):
        os.environ[name] = str(temporary)
    state = enter(writable)
    if mode == "required" and state != FULL:
        print(f"wanted is a sandbox with {FULL}, this machine gives {state}", file=sys.stderr)
        sys.exit(EXIT_NONE)
    os.environ[STATE] = state
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
