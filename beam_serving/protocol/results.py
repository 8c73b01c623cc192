"""Results as the client hands them out: the values that they always were, which also say what is in them.

Best classes are a dict, a tensor is an array, a text a `str`, several outputs a dict of these by name. Each is a
`Reply`: it has `top`, `tensors` and `text`, which are made when they are asked for, so that many results cost no more.
"""

import json
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any, NamedTuple, Protocol

import numpy as np

from beam_serving.errors import ResultError

_MOST_NAMES = 8
Labels = bytes | list[str | None] | None
"""The names of classes in their order, or JSON of these, which is parsed when it is asked for; None for none."""


class TopClass(NamedTuple):
    """One of the best classes of a result.

    Attributes:
        class_index: from 0, as the model numbers its classes.
        score: the probability, or whatever the model gives.
        label: the name of the class; None where the service knows none.
    """

    class_index: int
    score: float
    label: str | None


class Reply(Protocol):
    """What the service answered to one request.

    It also is the value itself: a dict from class to score, an array, a `str`, or a dict (for older clients' results a
    list) of such values; it is equal to such a value and prints like one.
    """

    @property
    def top(self) -> list[TopClass]:
        """The best classes, best first.

        Raises:
            ResultError: the result has no best classes, or several outputs: then each has its own, by name.
        """

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The outputs that were served whole, by name; numbers, or texts as `str` of the type object.

        Outputs of which the best classes were served are not among them. An output of an older client's result has
        its number for a name.
        """

    @property
    def text(self) -> str:
        """The text of an output of one text.

        Raises:
            ResultError: the result is none.
        """

    # What the value itself has: of a dict, an array, or a text.
    def __getitem__(self, key: Any, /) -> Any: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __eq__(self, other: object, /) -> Any: ...
    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...
    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value of a key, where the result is a dict.

        Args:
            key: a class or the name of an output.
            default: what stands for one that is not there.

        Returns:
            The value.
        """

    def keys(self) -> KeysView[Any]:
        """Return classes or names of outputs, where the result is a dict.

        Returns:
            As those of a dict.
        """

    def values(self) -> ValuesView[Any]:
        """Return scores or outputs, where the result is a dict.

        Returns:
            As those of a dict.
        """

    def items(self) -> ItemsView[Any, Any]:
        """Return both in pairs, where the result is a dict.

        Returns:
            As those of a dict.
        """


class BestClasses(dict[Any, float]):
    """The best classes of an output, best first: from 0-based index, or from name, to score."""

    __slots__ = ("_rest",)

    _rest: Labels | tuple[list[int], list[float], list[str | None]]

    @classmethod
    def by_index(cls, pairs: Iterable[tuple[int, float]], labels: Labels = None) -> "BestClasses":
        """Return classes by index, best first."""
        best = cls(pairs)
        best._rest = labels
        return best

    @classmethod
    def by_name(cls, indices: list[int], scores: list[float], labels: list[str | None]) -> "BestClasses":
        """Return classes by name, by the digits of the index where there is none; of those of one name the best one."""
        best = cls()
        for index, label, score in zip(indices, labels, scores, strict=True):
            best.setdefault(str(index) if label is None else label, score)
        best._rest = indices, scores, labels
        return best

    @property
    def top(self) -> list[TopClass]:
        """See `Reply`."""
        rest = getattr(self, "_rest", None)
        if isinstance(rest, tuple):
            return list(map(TopClass, *rest))
        labels = [None] * len(self) if rest is None else _parsed(rest)
        if len(labels) != len(self):
            raise ResultError(f"result is not readable: it has {len(labels)} labels for {len(self)} classes")
        return list(map(TopClass, self.keys(), self.values(), labels))

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """See `Reply`."""
        return {}

    @property
    def text(self) -> str:
        """See `Reply`."""
        raise ResultError("the result is no text: it has the best classes of an output, in .top")


class OutputArray(np.ndarray):
    """An output that is served whole. What is computed of it is an array of NumPy as ever."""

    output_name = ""

    def __array_finalize__(self, obj: object) -> None:
        self.output_name = getattr(obj, "output_name", "")

    def __reduce__(self) -> Any:
        return named, (self.output_name, np.asarray(self))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain if plain.ndim else plain[()]

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    @property
    def top(self) -> list[TopClass]:
        """See `Reply`."""
        raise ResultError(
            f"the result has no best classes: it is {_shown(self)}, in .tensors; "
            "the service ranks with params: top_n, where post_processing says nothing else"
        )

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """See `Reply`."""
        return {self.output_name: np.asarray(self)}

    @property
    def text(self) -> str:
        """See `Reply`."""
        if self.dtype == object and self.size == 1:
            return str(self.item())
        raise ResultError(f"the result is not one text: it is {_shown(self)}, in .tensors")


class OutputText(str):
    """An output of one text without dimensions."""

    output_name = ""

    @property
    def top(self) -> list[TopClass]:
        """See `Reply`."""
        raise ResultError("the result has no best classes: it is a text, in .text")

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """See `Reply`."""
        return {self.output_name: np.array(str(self), object)}

    @property
    def text(self) -> str:
        """See `Reply`."""
        return str(self)


class Outputs(dict[Any, Any]):
    """Several outputs by name."""

    @property
    def top(self) -> list[TopClass]:
        """See `Reply`."""
        return list(self._only(BestClasses, "best classes", "top").top)

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """See `Reply`."""
        whole = (OutputArray, OutputText)
        return {
            str(name): array for name, one in self.items() if isinstance(one, whole) for array in one.tensors.values()
        }

    @property
    def text(self) -> str:
        """See `Reply`."""
        return str(self._only(OutputText, "text", "text"))

    def _only(self, kind: type, what: str, attribute: str) -> Any:
        found = [one for one in self.values() if isinstance(one, kind)]
        if len(found) != 1:
            names = [repr(name) for name, one in self.items() if isinstance(one, kind)]
            having = f"those with {what} are {', '.join(names[:_MOST_NAMES])}; " if names else f"none has {what}; "
            raise ResultError(
                f"the result has {len(self)} outputs, {having}wanted is one of them, as result[name].{attribute}"
            )
        return found[0]


class OutputList(list[np.ndarray]):
    """Several outputs of a result that was written for an older client: they have no names."""

    @property
    def top(self) -> list[TopClass]:
        """See `Reply`."""
        raise ResultError(f"the result has no best classes: it is {len(self)} arrays, in .tensors")

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """See `Reply`."""
        return {str(place): np.asarray(array) for place, array in enumerate(self)}

    @property
    def text(self) -> str:
        """See `Reply`."""
        raise ResultError(f"the result is no text: it is {len(self)} arrays, in .tensors")


def named(name: str, array: np.ndarray) -> OutputArray:
    """Return an array as the output of that name."""
    output = array.view(OutputArray)
    output.output_name = name
    return output


def _parsed(labels: Any) -> list[str | None]:
    try:
        parsed = json.loads(labels) if isinstance(labels, bytes) else labels
    except (ValueError, RecursionError) as err:
        raise ResultError(f"result is not readable: {err}") from err
    return parsed if isinstance(parsed, list) else []


def _shown(array: np.ndarray) -> str:
    return f"{'texts' if array.dtype == object else array.dtype}{list(array.shape)}"
