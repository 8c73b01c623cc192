"""A message of the protobuf text format, whose fields are read by name and wanted type.

Without a schema, a mistyped field name would silently mean its default. So a message notes what has been read, and
`unread()` tells the fields that nobody asked for.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

MAX_INTEGER = 1 << 40
"""Far beyond every count in a net, and small enough that sums and products stay exact 64-bit integers for a while."""

_T = TypeVar("_T")
_FLAGS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class TextError(ValueError):
    """The text is not a message, or a field does not hold what is wanted; the message names field and value."""


class Scalar(NamedTuple):
    """A value as written: `text` is unescaped and without quotation marks if it was `quoted`."""

    text: str
    quoted: bool


class Message:
    """Fields in the order of the text. Every reader raises TextError for a value of another type."""

    def __init__(self, fields: Mapping[str, list["Scalar | Message"]]) -> None:
        self._fields = fields
        self._read: set[str] = set()
        self._ignored: set[str] = set()

    def has(self, name: str) -> bool:
        return bool(self._all(name))

    def unread(self) -> list[str]:
        """The names of the fields that no reader has asked for, those of the messages inside with their path."""
        names = []
        for name, values in self._fields.items():
            if name in self._ignored:
                continue
            if name not in self._read:
                names.append(name)
            for value in values:
                names += [f"{name}.{inner}" for inner in value.unread()] if isinstance(value, Message) else []
        return names

    def ignore(self, names: Iterable[str]) -> None:
        """Notes fields that do not matter, with all that is in them."""
        self._ignored.update(names)

    def text(self, name: str, default: str | None = None) -> str:
        return self._one(name, self.texts(name), default)

    def integer(self, name: str, default: int | None = None) -> int:
        return self._one(name, self.integers(name), default)

    def real(self, name: str, default: float | None = None) -> float:
        return self._one(name, self.reals(name), default)

    def flag(self, name: str, default: bool) -> bool:
        return self._one(name, self._converted(name, _flag, "true or false"), default)

    def choice(self, name: str, values: Mapping[str, int], default: str) -> str:
        """An enum value by its name; in the file it may also be the number."""
        names = {str(number): value for value, number in values.items()} | {value: value for value in values}
        wanted = " or ".join(values)
        return self._one(name, self._converted(name, lambda scalar: names[scalar.text], wanted), default)

    def message(self, name: str) -> "Message":
        """A nested message; an empty one where the field is absent."""
        messages = self.messages(name)
        return self._one(name, messages, Message({}))

    def texts(self, name: str) -> list[str]:
        return self._converted(name, lambda scalar: scalar.text, "a text")

    def integers(self, name: str) -> list[int]:
        return self._converted(name, _integer, f"an integer below {MAX_INTEGER}")

    def reals(self, name: str) -> list[float]:
        return self._converted(name, _real, "a finite number")

    def messages(self, name: str) -> list["Message"]:
        values = self._all(name)
        messages = [value for value in values if isinstance(value, Message)]
        if len(messages) != len(values):
            raise TextError(f"field '{name}' is a value, wanted a message in braces")
        return messages

    def _all(self, name: str) -> list["Scalar | Message"]:
        self._read.add(name)
        return self._fields.get(name, [])

    def _converted(self, name: str, convert: Callable[[Scalar], _T], wanted: str) -> list[_T]:
        values = []
        for value in self._all(name):
            if isinstance(value, Message):
                raise TextError(f"field '{name}' is a message, wanted {wanted}")
            try:
                values.append(convert(value))
            except (ValueError, KeyError) as err:
                raise TextError(f"field '{name}' is {value.text[:40]!r}, wanted {wanted}") from err
        return values

    @staticmethod
    def _one(name: str, values: list[_T], default: _T | None) -> _T:
        if len(values) > 1:
            raise TextError(f"field '{name}' is given {len(values)} times, wanted once")
        if values:
            return values[0]
        if default is None:
            raise TextError(f"field '{name}' is missing")
        return default


def _unquoted(scalar: Scalar) -> str:
    if scalar.quoted:
        raise ValueError(scalar.text)
    return scalar.text


def _integer(scalar: Scalar) -> int:
    digits = _unquoted(scalar)
    if len(digits) > 40:
        raise ValueError(digits)
    unsigned = digits.lstrip("+-").lower()
    octal = len(unsigned) > 1 and unsigned.startswith("0") and not unsigned.startswith("0x")
    number = int(digits, 8) if octal else int(digits, 0)
    if abs(number) >= MAX_INTEGER:
        raise ValueError(digits)
    return number


def _real(scalar: Scalar) -> float:
    number = float(_unquoted(scalar).rstrip("fF"))
    if not math.isfinite(number):
        raise ValueError(scalar.text)
    return number


def _flag(scalar: Scalar) -> bool:
    return _FLAGS[_unquoted(scalar).lower()]
