"""A value that somebody sent becomes the tensor of an input exactly, or is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.errors import RequestError
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.models.inputs import as_array, cast, resolve_input

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
FLOATS = ["float16", "float32", "float64"]


def spec(dtype: Any, shape: tuple[int | None, ...] | None = None) -> TensorSpec:
    return TensorSpec("x", shape, np.dtype(dtype))


@given(st.integers(-(2**63), 2**64 - 1), st.sampled_from(INTEGERS), st.sampled_from(INTEGERS))
def test_a_whole_number_arrives_as_it_is_or_not_at_all(number: int, came: str, wanted: str) -> None:
    info = np.iinfo(came)
    if not info.min <= number <= info.max:
        return
    to = np.iinfo(wanted)
    tensor = np.array([number], came)

    if to.min <= number <= to.max:
        got = cast(tensor, spec(wanted))
        assert got.dtype == wanted
        assert int(got[0]) == number
    else:
        with pytest.raises(RequestError, match=f"values that are no {wanted}, such as {number}"):
            cast(tensor, spec(wanted))


@given(st.floats(), st.sampled_from(FLOATS), st.sampled_from(INTEGERS))
def test_a_float_arrives_as_a_whole_number_only_if_it_is_one(number: float, came: str, wanted: str) -> None:
    with np.errstate(over="ignore"):
        tensor = np.array([number]).astype(came)
    value, info = float(tensor[0]), np.iinfo(wanted)

    if np.isfinite(value) and value == int(value) and info.min <= int(value) <= info.max:
        assert int(cast(tensor, spec(wanted))[0]) == int(value)
    else:
        with pytest.raises(RequestError, match=f"values that are no {wanted}"):
            cast(tensor, spec(wanted))


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(FLOATS))
def test_a_whole_number_arrives_as_a_float_only_if_that_holds_it(number: int, wanted: str) -> None:
    tensor = np.array([number])
    with np.errstate(over="ignore"):
        held = np.isfinite(tensor.astype(wanted)[0]) and int(tensor.astype(wanted)[0]) == number

    if held:
        assert int(cast(tensor, spec(wanted))[0]) == number
    else:
        with pytest.raises(RequestError, match=f"values that are no {wanted}"):
            cast(tensor, spec(wanted))


def test_fractions_are_rounded_and_never_become_infinite() -> None:
    assert cast(np.array([0.1]), spec(np.float32))[0] == np.float32(0.1)
    assert np.isnan(cast(np.array([np.nan]), spec(np.float32))[0])
    assert np.isinf(cast(np.array([np.inf]), spec(np.float16))[0])
    with pytest.raises(RequestError, match="float64 values that are infinite as float32, such as 1e\\+300"):
        cast(np.array([1e300]), spec(np.float32))


@pytest.mark.parametrize(("came", "wanted"), [(bool, np.float32), (np.float32, bool), (np.int64, bool)])
def test_other_kinds_are_refused_or_exact(came: Any, wanted: Any) -> None:
    tensor = np.array([1], came)
    try:
        got = cast(tensor, spec(wanted))
    except RequestError as err:
        assert f"has type {np.dtype(came)}, the model takes {np.dtype(wanted)}" in str(err)  # noqa: PT017 - either is right
    else:
        assert got.tolist() == [1]


def test_one_axis_of_one_record_in_front_is_dropped_and_no_other() -> None:
    assert resolve_input(np.zeros((1, 3), np.float32), spec(np.float32, (3,))).shape == (3,)
    assert resolve_input(np.zeros((3,), np.float32), spec(np.float32, (None,))).shape == (3,)
    assert resolve_input(np.array(["a"], object), spec(STRING, ())).shape == ()
    with pytest.raises(RequestError, match=r"input 'x' has shape \[2, 3\], the model takes \[3\]"):
        resolve_input(np.zeros((2, 3), np.float32), spec(np.float32, (3,)))
    with pytest.raises(RequestError, match="input 'x' has type string, the model takes float32"):
        resolve_input(np.array(["a"], object), spec(np.float32, (1,)))
    with pytest.raises(RequestError, match="input 'x' has type float32, the model takes string"):
        resolve_input(np.zeros(1, np.float32), spec(STRING, (1,)))
    with pytest.raises(RequestError, match="an image is sent as the bytes of its file, not as its path"):
        resolve_input(np.array("a.png", object), spec(np.float32, (3, 8, 8)))


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        ([1, 2], np.int64, (2,)),
        (1.5, np.float64, ()),
        ("text", object, ()),
        (["a", "b"], object, (2,)),
        (True, bool, ()),
    ],
)
def test_plain_values_become_arrays(value: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    array = as_array(value)
    assert (array.dtype, array.shape) == (np.dtype(dtype), shape)


@pytest.mark.parametrize("value", [[[1], [1, 2]], {"a": 1}, None, [None], 1j, object()])
def test_what_is_no_tensor_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match=f"a {type(value).__name__} "):
        as_array(value)
