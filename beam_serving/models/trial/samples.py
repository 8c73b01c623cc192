"""What a model is tried with: records from the operator's sample, or invented ones from harmless to extreme."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, ModelOptions, Shapes, TensorSpec, fits, listed_shapes, type_name

Record = dict[str, np.ndarray]
"""The tensors of one record by input name, without a batch axis."""
_IMAGE_SIZES = (64, 224, 320, 512, 1, 96)
_SIZES = (7, 1, 16, 64, 128, 512)
_MOST_VALUES = 1 << 24
"""In a record: with several free sizes the larger ones would be more than a machine holds."""
_RANK = 1
"""Of a record for an input that takes any shape."""
_SPREADS = (1.0, 30.0, -500.0)
"""Magnitudes of neighbours: what mixes rows cannot hide among rounding errors."""
_FAR = (2e3, -2e3, 2e6, -20.0, -2e5)
"""Magnitudes at which rows may meet that do not meet among the small ones."""
_FAR_WHOLE = 200
"""Of whole numbers, which may be sizes or places in a list."""
_WORDS = ("", "a", "Ünïcode ∞ текст", "a text that is longer than sixteen bytes", "3.5", "7")
_LARGE = (0, 1, -1, 127, -128, 255, 32767, -32768, 2**24 + 1, 2**31 - 1, -(2**31), 2**31, 2**33, 2**53 + 1, 2**62)


def invented_shapes(specs: Sequence[TensorSpec]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield shapes of records to try one after the other, where sizes are free."""
    tried = []
    for image_size, size in zip(_IMAGE_SIZES, _SIZES, strict=True):
        shapes = {spec.name: _invented_shape(spec.shape, image_size, size) for spec in specs}
        if sum(map(math.prod, shapes.values())) > _MOST_VALUES:
            continue
        if shapes not in tried:
            tried.append(shapes)
            yield shapes


def _invented_shape(shape: tuple[int | None, ...] | None, image_size: int, size: int) -> tuple[int, ...]:
    if shape is None:
        return (size,) * _RANK
    is_image = len(shape) == 3 and bool({1, 3, 4} & {shape[0], shape[2]})
    return tuple((image_size if is_image else size) if known is None else known for known in shape)


def records(
    specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], count: int, least: int = 0
) -> Iterator[list[Record]]:
    """Yield lists of `count` records that differ from each other: mild values first, then ones far apart.

    Whole numbers are at least `least`: 0 is no divisor, and 1 is no place in a list of one.
    """
    for seed, is_mild in enumerate((True, False)):
        random = np.random.default_rng(seed)
        yield [
            {spec.name: _values(random, spec, shapes[spec.name], row, is_mild, least) for spec in specs}
            for row in range(count)
        ]


def _values(
    random: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...], row: int, is_mild: bool, least: int = 0
) -> np.ndarray:
    if spec.dtype == STRING:
        texts = np.empty(shape, STRING)
        for place, index in enumerate(np.ndindex(shape)):
            texts[index] = str(row + place) if is_mild else _WORDS[(row + place) % len(_WORDS)]
        return texts
    if spec.dtype.kind == "b":
        return np.asarray(random.random(shape) < (0.5 if is_mild else (row + 1) / 4))
    if spec.dtype.kind in "iu":
        return np.asarray(random.integers(least, (2 if is_mild else 10) + least, shape), spec.dtype)
    spread = 1.0 if is_mild else _SPREADS[row % len(_SPREADS)]
    # In float16 500 times a square is beyond what there is.
    spread = np.sign(spread) * min(abs(spread), 8.0) if spec.dtype.itemsize < 4 else spread
    values = random.random(shape) * 2 - (0.0 if is_mild else 1.0)
    return np.asarray(values * spread, spec.dtype)


def extremes(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Record]:
    """Yield records of numbers at the edges of their types; only where a model takes integers."""
    if not any(spec.dtype.kind in "iu" for spec in specs):
        return
    for start in range(0, len(_LARGE), 5):
        random = np.random.default_rng(start)
        yield {
            spec.name: _large(spec, shapes[spec.name], start)
            if spec.dtype.kind in "iu"
            else _values(random, spec, shapes[spec.name], start, is_mild=False)
            for spec in specs
        }


def _large(spec: TensorSpec, shape: tuple[int, ...], start: int) -> np.ndarray:
    info = np.iinfo(spec.dtype)
    least, most = int(info.min), int(info.max)
    if spec.below is not None:
        least, most = max(least, -spec.below), min(most, spec.below - 1)
    values = [value for value in (*_LARGE[start:], *_LARGE[:start], least, most) if least <= value <= most]
    count = int(np.prod(shape))
    return np.array(list(itertools.islice(itertools.cycle(values), count)), spec.dtype).reshape(shape)


def not_finite(record: Record) -> Iterator[Record]:
    """Yield the record with NaN, infinity and minus infinity in its tensors of floats, one after the other."""
    if not any(array.dtype.kind == "f" and array.size for array in record.values()):
        return
    for value in (np.nan, np.inf, -np.inf):
        changed = {}
        for name, array in record.items():
            changed[name] = array.copy()
            if array.dtype.kind == "f" and array.size:
                changed[name].reshape(-1)[:: max(2, array.size // 3)] = value
        yield changed


def many_of(some: Sequence[Record], count: int) -> list[Record]:
    """Return more records than a few, some of them equal, from the ones that a model takes."""
    return [some[place % len(some)] for place in range(count)]


def far_of(some: Sequence[Record], count: int, all_below: bool = False) -> list[Record]:
    """Return records whose numbers are far from those of `some`: of one sign in each record, or `all_below` zero."""
    random = np.random.default_rng(0)
    fars = np.resize(_FAR, count).tolist()
    return [
        {name: _far(random, array, -abs(fars[place]) if all_below else fars[place]) for name, array in record.items()}
        for place, record in enumerate(many_of(some, count))
    ]


def _far(random: np.random.Generator, array: np.ndarray, far: float) -> np.ndarray:
    size = 1 + random.random(array.shape)
    if array.dtype.kind == "f":
        return np.asarray(size * np.clip(far, *((-1e3, 1e3) if array.dtype.itemsize < 4 else (far, far))), array.dtype)
    if array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        return np.asarray(
            size * np.clip(far, max(info.min // 2, -_FAR_WHOLE), min(info.max // 2, _FAR_WHOLE)), array.dtype
        )
    return array


def sampled(
    specs: Sequence[TensorSpec], options: ModelOptions
) -> tuple[list[Record], dict[str, tuple[int, ...]] | None]:
    """Read `model: sample`: the records of a file and their shapes, or just shapes.

    An .npz has an array for each input: one record, or several along a first axis. An image stands for its size.

    Raises:
        ModelLoadError: the file cannot be read, or does not fit the model.
    """
    if options.sample is None:
        return [], None
    if not isinstance(options.sample, str):
        return [], _sample_shapes(specs, options.sample)
    path = Path(options.sample)
    if path.suffix.lower() != ".npz":
        return [], _image_shapes(specs, path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            given = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as err:
        raise ModelLoadError(f"model: sample: {path} cannot be read as .npz ({err})") from err
    if len(specs) == len(given) == 1:
        given = {specs[0].name: next(iter(given.values()))}
    if missing := [spec.name for spec in specs if spec.name not in given]:
        raise ModelLoadError(f"model: sample: {path} has no array {missing[0]!r}, its arrays are {sorted(given)}")
    found = [_cut(given[spec.name], spec, path) for spec in specs]
    rows = [
        {spec.name: column[row] for spec, column in zip(specs, found, strict=True)}
        for row in range(min(map(len, found)))
    ]
    return rows, {spec.name: rows[0][spec.name].shape for spec in specs}


def _cut(array: np.ndarray, spec: TensorSpec, path: Path) -> Sequence[np.ndarray]:
    if (array.dtype.kind in "US") != (spec.dtype == STRING):
        got, wanted = ("text" if array.dtype.kind in "US" else array.dtype), type_name(spec.dtype)
        raise ModelLoadError(f"model: sample: {path}: array {spec.name!r} is {got}, the model takes {wanted}")
    array = array.astype(spec.dtype, copy=False)
    if fits(array.shape, spec.shape):
        return [array]
    if array.ndim and len(array) and fits(array.shape[1:], spec.shape):
        # With the ellipsis a row is an array, also where it is one text.
        return [array[row, ...] for row in range(len(array))]
    taken = ["any" if size is None else size for size in spec.shape or ()]
    raise ModelLoadError(f"model: sample: {path}: array {spec.name!r} is {list(array.shape)}, the model takes {taken}")


def _sample_shapes(specs: Sequence[TensorSpec], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    names = [spec.name for spec in specs]
    listed = [] if isinstance(shapes, Mapping) else listed_shapes(shapes)
    named = dict(shapes) if isinstance(shapes, Mapping) else dict(zip(names, listed, strict=False))
    if len(listed) > len(names) or named.keys() - set(names):
        found = len(listed) or ", ".join(named)
        raise ModelLoadError(f"model: sample: has shapes for {found}, the inputs are {', '.join(names)}")
    for spec in specs:
        given = named.setdefault(spec.name, ()) if spec.shape == () else named.get(spec.name)
        if given is None or not fits(given, spec.shape):
            taken = "any" if spec.shape is None else ["any" if size is None else size for size in spec.shape]
            raise ModelLoadError(f"model: sample: the shape of {spec.name!r} is {given}, the model takes {taken}")
    return named


def _image_shapes(specs: Sequence[TensorSpec], path: Path) -> dict[str, tuple[int, ...]]:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ModelLoadError(f"model: sample: {path} is no image that can be read, and no .npz")
    shapes = {}
    for spec in specs:
        shape = spec.shape or ()
        sizes = iter(pixels.shape[:2] if len(shape) > 1 else ())
        shapes[spec.name] = tuple(next(sizes, 1) if size is None else size for size in shape)
    return shapes
