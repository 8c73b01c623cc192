"""Which names give each parallel task of Flink exactly one reader.

Flink sends an element of a splittable DoFn to the task that a hash of the element points at, so that free names leave
some tasks with two readers and others with none. The same hash is computed here (KeyGroupRangeAssignment and
MathUtils.murmurHash of Flink 1.19, over the hash of Java's ByteBuffer), and names are chosen by it.
"""

import itertools

_MASK = 0xFFFFFFFF


def names_for_tasks(base: str, parallelism: int) -> list[str]:
    """Return one name for each task, in the order of the tasks, at a maximum parallelism equal to `parallelism`."""
    names: dict[int, str] = {}
    for number in itertools.count():
        name = f"{base}-{number}"
        names.setdefault(task_of(name, parallelism), name)
        if len(names) == parallelism:
            return [names[task] for task in range(parallelism)]
    raise AssertionError("counting never ends")


def task_of(name: str, parallelism: int) -> int:
    """Return the task that Flink sends an element to, which is this text."""
    text = name.encode()
    if len(text) > 127:
        raise ValueError(f"{name!r} has more than 127 bytes, which Beam's coder gives a longer prefix")
    return _murmur(_java_hash(bytes([len(text)]) + text)) % parallelism


def _java_hash(content: bytes) -> int:
    """Compute java.nio.ByteBuffer.hashCode: from the last byte to the first, with signed bytes."""
    code = 1
    for byte in reversed(content):
        code = (31 * code + (byte - 256 if byte > 127 else byte)) & _MASK
    return code


def _murmur(code: int) -> int:
    code = _rotated(code * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK
    code = (_rotated(code, 13) * 5 + 0xE6546B64) & _MASK
    code ^= 4
    code = (code ^ code >> 16) * 0x85EBCA6B & _MASK
    code = (code ^ code >> 13) * 0xC2B2AE35 & _MASK
    code ^= code >> 16
    return code if code < 1 << 31 else (1 << 32) - code & 0x7FFFFFFF


def _rotated(code: int, bits: int) -> int:
    return (code << bits | code >> 32 - bits) & _MASK
