"""Between single examples and whole batches: stacking, the checks of a model's promises, the trial inference."""

from collections.abc import Mapping, Sequence

import numpy as np

from beam_serving.errors import ModelError, ModelLoadError
from beam_serving.models.base import STRING, LoadedModel, ModelOptions, TensorSpec, describe, fits

UNNAMED = ""
"""The name of an input that a request did not name: it means the model's only input."""


def predict_batch(model: LoadedModel, examples: Sequence[Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """Run a model on examples, one after the other where it takes them so.

    Args:
        model: what predicts.
        examples: one or more, each with tensors by input name, without a batch axis, in the model's types.

    Returns:
        The outputs by name; row i of every output is that of example i.

    Raises:
        ModelError: an example does not fit the model, examples differ in shape, the engine failed, or the model gave
            another number of rows than there are examples.
    """
    specs = model.inputs or _specs_of(examples[0])
    if model.one_by_one and len(examples) > 1:
        return _joined([predict_batch(model, [example]) for example in examples])
    batch = {spec.name: _stack(spec, _column(spec.name, specs, examples)) for spec in specs}
    try:
        outputs = model.predict(batch)
    except ModelError:
        # A model may find with its first batch that its records cannot be served together.
        if not model.one_by_one or len(examples) == 1:
            raise
        return predict_batch(model, examples)
    check_rows(outputs, len(examples))
    return outputs


def alike(examples: Sequence[Mapping[str, np.ndarray]], one_by_one: bool = False) -> list[list[int]]:
    """Return the places of examples that can be stacked, those of one shape together; mostly all of them."""
    if one_by_one:
        return [[place] for place in range(len(examples))]
    shapes = [[tensor.shape for tensor in example.values()] for example in examples]
    if shapes.count(shapes[0]) == len(shapes):
        return [list(range(len(shapes)))]
    places: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for place, of_one in enumerate(shapes):
        places.setdefault(tuple(of_one), []).append(place)
    return list(places.values())


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """Join what single records got.

    Raises:
        ModelError: they got outputs of different shapes.
    """
    for name in parts[0]:
        if len(shapes := {part[name].shape for part in parts}) > 1:
            raise ModelError(f"output {name!r} has the shapes {sorted(shape[1:] for shape in shapes)} in one batch")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_rows(outputs: Mapping[str, np.ndarray], examples: int) -> None:
    """Make sure that every output has one row per example.

    Args:
        outputs: what the model gave, by name.
        examples: how many there were.

    Raises:
        ModelError: an output has another number of rows, or no axis of them.
    """
    for name, rows in outputs.items():
        if rows.ndim == 0 or len(rows) != examples:
            wanted = f"{examples} examples need {examples} rows"
            raise ModelError(f"output {name!r} of the model is {describe(rows.dtype, rows.shape)}, {wanted}")


def trial_batch(
    specs: Sequence[TensorSpec], batch_size: int, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, np.ndarray]:
    """Return a batch of zeros, or of empty texts; free sizes are those of `shapes`, else 1."""
    batch = {}
    for spec in specs or (TensorSpec("input", (1,), np.dtype(np.float32)),):
        sizes = tuple(size or 1 for size in spec.shape or ())
        shape = (batch_size, *(shapes or {}).get(spec.name, sizes))
        batch[spec.name] = np.full(shape, "", STRING) if spec.dtype == STRING else np.zeros(shape, spec.dtype)
    return batch


def warm_up(model: LoadedModel, batch_size: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None) -> str | None:
    """Predict a batch of zeros, so that the first request finds a model that has set itself up.

    Args:
        model: what predicts.
        batch_size: how many records.
        shapes: by input, those of a record that the model takes; free sizes are tried as 1 without them.

    Returns:
        Why it failed, None where it did not. The zeros are invented: what a request holds may well be served.
    """
    batch = trial_batch(model.inputs, 1 if model.one_by_one else batch_size, shapes)
    try:
        check_rows(model.predict(batch), len(next(iter(batch.values()))))
    except ModelError as err:
        tried = ", ".join(f"{name} {describe(rows.dtype, rows.shape)}" for name, rows in batch.items())
        return f"a trial inference with zeros ({tried}) failed: {err}"
    return None


def check_shapes(
    model: LoadedModel, options: ModelOptions, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> None:
    """Make sure that a model computes what the configuration says of its shapes, where that says something.

    Args:
        model: what predicts.
        options: how it was loaded.
        shapes: see `warm_up`.

    Raises:
        ModelLoadError: it does not, so that every request would fail.
    """
    if options.input_shape is not None and (failure := warm_up(model, 1, shapes)):
        raise ModelLoadError(f"data: shape: {failure}; leave it out, or set the shape that the model takes")


def _specs_of(example: Mapping[str, np.ndarray]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, array.shape, array.dtype) for name, array in example.items())


def _column(
    name: str, specs: Sequence[TensorSpec], examples: Sequence[Mapping[str, np.ndarray]]
) -> Sequence[np.ndarray]:
    """Return one input of all examples, each of which must have exactly the inputs of the model."""
    column = []
    for example in examples:
        array = example.get(name)
        if array is None and len(specs) == 1:
            array = example.get(UNNAMED)
        if array is None or len(example) != len(specs):
            wanted = sorted(spec.name for spec in specs)
            raise ModelError(f"an example has the inputs {sorted(example)}, the model takes {wanted}")
        column.append(array)
    return column


def _stack(spec: TensorSpec, arrays: Sequence[np.ndarray]) -> np.ndarray:
    first = arrays[0]
    for array in arrays:
        if array.dtype != spec.dtype or (array.shape != spec.shape and not fits(array.shape, spec.shape)):
            got = describe(array.dtype, array.shape)
            raise ModelError(f"input {spec.name!r} is {got}, the model takes {describe(spec.dtype, spec.shape)}")
        if array.shape != first.shape:
            shapes = f"{list(first.shape)} and {list(array.shape)}"
            raise ModelError(f"input {spec.name!r} has the shapes {shapes} in one batch, a batch needs one")
    return stacked(arrays)


def stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays of one shape and type; what lies one after the other in an array is not copied."""
    first = arrays[0]
    if len(arrays) == 1:
        return np.ascontiguousarray(first[np.newaxis])
    if (already := _stacked_already(arrays)) is not None:
        return already
    batch = np.empty((len(arrays), *first.shape), first.dtype)
    for row, array in enumerate(arrays):
        batch[row, ...] = array
    return batch


def _stacked_already(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the part of an array whose rows these are, one after the other; None where they are not."""
    first, base = arrays[0], arrays[0].base
    if not isinstance(base, np.ndarray) or base.dtype != first.dtype or base.shape[1:] != first.shape:
        return None
    start, row_bytes = _address(first), first.nbytes
    if not row_bytes or not base.flags.c_contiguous:
        return None
    for index, array in enumerate(arrays):
        if array.base is not base or _address(array) != start + index * row_bytes or not array.flags.c_contiguous:
            return None
    row = (start - _address(base)) // row_bytes
    return base[row : row + len(arrays)]


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
