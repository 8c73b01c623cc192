"""What goes into a module of torch and comes out of it, as plain arrays with names."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, TensorSpec, numbered

TORCH_ERRORS = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, OSError),
    torch.jit.Error,
)
"""What torch raises when a file or a batch does not suit it; `torch.jit.Error` is an Exception alone."""

_AS_FLOAT32 = {getattr(torch, name) for name in dir(torch) if re.fullmatch(r"bfloat16|float8_\w+", name)}
_SCALARS = {int: np.dtype(np.int64), float: np.dtype(np.float64), bool: np.dtype(np.bool_), str: STRING}
_SYMBOLS = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception): ")
_MOST_REASON = 300


Kind: TypeAlias = torch.dtype | type[int] | type[float] | type[bool] | type[str]
Value: TypeAlias = torch.Tensor | int | float | bool | str
"""What a module takes of a request."""


class Argument(NamedTuple):
    """An input of a module: `spec` as the engine announces it, `kind` a type of torch, or int, float, bool or str."""

    spec: TensorSpec
    kind: Kind

    def value(self, array: np.ndarray, device: str) -> Value:
        """Return what the module takes for an array; never the array's own memory, which a module may write to."""
        if isinstance(self.kind, torch.dtype):
            return torch.from_numpy(np.array(array, order="C")).to(device, self.kind)
        value = array.item()
        return value.decode() if isinstance(value, bytes) else self.kind(value)


def argument(name: str, shape: tuple[int | None, ...] | None, kind: Kind, path: Path) -> Argument:
    """Describe an input.

    Raises:
        ModelLoadError: requests have no type for it.
    """
    dtype = _SCALARS.get(kind) if isinstance(kind, type) else plain_dtype(kind)
    if dtype is None:
        reported, remedy = str(kind).removeprefix("torch."), "export it with an input of another type"
        raise ModelLoadError(f"{path}: input {name!r} is {reported}, which requests cannot send; {remedy}")
    return Argument(TensorSpec(name, shape, dtype), kind)


def free_or_fixed(size: object) -> int | None:
    """Return a size, None where it is a symbol."""
    return size if isinstance(size, int) else None


def plain_dtype(kind: torch.dtype) -> np.dtype | None:
    """Return the type of NumPy that holds all values of a type of torch; None for complex numbers and packed bits."""
    if kind in _AS_FLOAT32:
        return np.dtype(np.float32)
    try:
        plain: np.dtype = torch.empty(0, dtype=kind).numpy().dtype
    except (TypeError, RuntimeError):
        return None
    return None if plain.kind == "c" else plain


def named_leaves(given: object) -> list[tuple[str, object]]:
    """Name what a module returned: tensors, numbers and texts inside tuples, lists and dictionaries.

    One alone is `output`, those of a tuple or list are `output_0`, `output_1`, ..., those of a dictionary or named
    tuple have its names. What is inside one of these has both names, with a dot: `output_1.0`, `hidden.1`. A list of
    numbers or texts is one output.
    """
    leaves = list(_leaves(given, ""))
    if max(Counter(name for name, _ in leaves).values(), default=0) > 1:
        leaves = [(name, leaf) for name, (_, leaf) in zip(numbered("output", len(leaves)), leaves, strict=True)]
    return leaves


def _leaves(given: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        given = dict(zip(given._fields, given, strict=True))
    if isinstance(given, Mapping):
        parts = [(f"{name}.{key}" if name else str(key), part) for key, part in given.items()]
    elif isinstance(given, tuple | list) and not _is_column(given):
        names = [f"{name}.{place}" for place in range(len(given))] if name else numbered("output", len(given))
        parts = list(zip(names, given, strict=True))
    else:
        yield name or "output", given
        return
    for part_name, part in parts:
        yield from _leaves(part, part_name)


def _is_column(given: tuple[object, ...] | list[object]) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and (
            all(isinstance(one, int | float | torch.SymInt | torch.SymFloat) for one in given)
            or all(isinstance(one, str) for one in given)
        )
    )


def leaf_spec(name: str, leaf: object) -> TensorSpec | str:
    """Describe an output from one that a module returned, or tell why requests cannot be given it."""
    if isinstance(leaf, torch.Tensor):
        quantized = leaf.is_quantized if type(leaf) is torch.Tensor else False
        dtype = np.dtype(np.float32) if quantized else plain_dtype(leaf.dtype)
        if dtype is None:
            return f"is {str(leaf.dtype).removeprefix('torch.')}, for which results have no type"
        return TensorSpec(name, tuple(map(free_or_fixed, leaf.shape)), dtype)
    leaf = [_concrete(one) for one in leaf] if isinstance(leaf, list) else _concrete(leaf)
    column = leaf if isinstance(leaf, list) else [leaf]
    if not all(type(one) in _SCALARS for one in column):
        return f"is {leaf}" if leaf is None else f"is a {type(leaf).__name__}, wanted is a tensor, number or text"
    array = _plain(leaf)
    return TensorSpec(name, array.shape, array.dtype)


def _concrete(leaf: object) -> object:
    """Return some number for a symbol, which stands for one."""
    return next((kind() for symbol, kind in _SYMBOLS.items() if isinstance(leaf, symbol)), leaf)


def to_array(leaf: object) -> np.ndarray:
    """Return an output as an array of its own.

    Raises:
        TypeError: requests cannot be given it.
    """
    if not isinstance(leaf, torch.Tensor):
        reason = leaf_spec("", leaf)
        if isinstance(reason, str):
            raise TypeError(reason)
        return _plain(leaf)
    return _array_of(leaf)


def _array_of(leaf: torch.Tensor) -> np.ndarray:
    if leaf.is_quantized:
        leaf = leaf.dequantize()
    if leaf.layout != torch.strided:
        leaf = leaf.to_dense()
    if leaf.dtype in _AS_FLOAT32:
        leaf = leaf.to(torch.float32)
    if plain_dtype(leaf.dtype) is None:
        raise TypeError(str(leaf_spec("", leaf)))
    # A module may return a weight, or its state: the copy belongs to the caller.
    owned: np.ndarray = leaf.detach().cpu().resolve_neg().numpy().copy()
    return owned


def _plain(leaf: object) -> np.ndarray:
    column = leaf if isinstance(leaf, list) else [leaf]
    kinds = {type(one) for one in column}
    dtype = _SCALARS[next(iter(kinds))] if len(kinds) == 1 else np.dtype(np.float64)
    return np.array(leaf, dtype)


def torch_reason(err: BaseException) -> str:
    """Take the telling line of an error of torch: the last one that names an error, or the first.

    TorchScript ends with it, after a traceback of the module's own source; a list of kernels may follow any message.
    """
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    named = [line for line in lines if _ERROR_LINE.match(line)]
    return (named[-1] if named else next(iter(lines), type(err).__name__))[:_MOST_REASON]
