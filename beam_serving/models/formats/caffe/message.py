"""A message of a Caffe net, whose fields are read by name and wanted type.

A field that nobody reads would silently change nothing: one of another layer's parameters, or of a fork that computes
otherwise. So a message notes what has been read, and `unread()` tells the fields that nobody asked for.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, Union

MAX_INTEGER = 1 << 40
"""Far beyond every count in a net, and small enough that sums and products stay exact 64-bit integers for a while."""

Value = Union[bool, int, float, str, "Message"]
"""What a field holds; an enum's value is its name."""

_T = TypeVar("_T")


class TextError(ValueError):
    """The text is not a net, or a field does not hold what is wanted; the message names field and value."""


class Message:
    """Fields by name as the schema has them, and the names of those that it does not have."""

    def __init__(self, fields: Mapping[str, Sequence[Value]], unknown: Sequence[str] = ()) -> None:
        self._fields = fields
        self._unknown = unknown
        self._read: set[str] = set()
        self._ignored: set[str] = set()

    def has(self, name: str) -> bool:
        return bool(self._all(name))

    def unread(self) -> list[str]:
        """Return the names of the fields that no reader has asked for, those of the messages inside with their path."""
        names = []
        for name, values in self._fields.items():
            if name not in self._read:
                names.append(name)
                continue
            for value in values:
                names += [f"{name}.{inner}" for inner in value.unread()] if isinstance(value, Message) else []
        return [name for name in (*names, *self._unknown) if name.partition(".")[0] not in self._ignored]

    def ignore(self, names: Iterable[str]) -> None:
        """Note fields that do not matter, with all that is in them."""
        self._ignored.update(names)

    def text(self, name: str, default: str | None = None) -> str:
        return self._one(name, self.texts(name), default)

    def integer(self, name: str, default: int | None = None) -> int:
        return self._one(name, self.integers(name), default)

    def real(self, name: str, default: float | None = None) -> float:
        return self._one(name, self.reals(name), default)

    def flag(self, name: str, default: bool) -> bool:
        return self._one(name, self._of(name, bool), default)

    def choice(self, name: str, default: str) -> str:
        """Return the name of an enum's value; in the file it may also be the number."""
        return self._one(name, self.texts(name), default)

    def message(self, name: str) -> "Message":
        """Return a nested message; an empty one where the field is absent."""
        return self._one(name, self.messages(name), Message({}))

    def texts(self, name: str) -> list[str]:
        return self._of(name, str)

    def integers(self, name: str) -> list[int]:
        values = self._of(name, int)
        for value in values:
            if abs(value) >= MAX_INTEGER:
                raise TextError(f"field '{name}' is {value}, wanted an integer below {MAX_INTEGER}")
        return values

    def reals(self, name: str) -> list[float]:
        values = self._of(name, float)
        for value in values:
            if not math.isfinite(value):
                raise TextError(f"field '{name}' is {value}, wanted a finite number")
        return values

    def messages(self, name: str) -> list["Message"]:
        return self._of(name, Message)

    def _all(self, name: str) -> Sequence[Value]:
        self._read.add(name)
        return self._fields.get(name, ())

    def _of(self, name: str, kind: type[_T]) -> list[_T]:
        values = self._all(name)
        found: list[_T] = [value for value in values if isinstance(value, kind)]
        if len(found) != len(values):
            raise TypeError(f"the schema has another type than {kind.__name__} for {name}")
        return found

    @staticmethod
    def _one(name: str, values: Sequence[_T], default: _T | None) -> _T:
        """Return the last value; protobuf takes one of a field that is not repeated."""
        if values:
            return values[-1]
        if default is None:
            raise TextError(f"field '{name}' is missing")
        return default
