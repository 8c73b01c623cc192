"""What a model is tried with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_serving.errors import ModelLoadError
from beam_serving.models.base import STRING, ModelOptions, Shapes, TensorSpec, fits
from beam_serving.models.trial.samples import extremes, invented_shapes, not_finite, records, sampled

FLOAT32 = np.dtype(np.float32)
KINDS = st.sampled_from([np.dtype(kind) for kind in ("f4", "f8", "f2", "i8", "i4", "u1", "i1", "?", "O")])
SIZES = st.lists(st.none() | st.integers(1, 4), max_size=3).map(tuple)


def spec(name: str = "x", shape: tuple[int | None, ...] | None = (2,), dtype: np.dtype = FLOAT32) -> TensorSpec:
    return TensorSpec(name, shape, dtype)


@given(st.lists(st.tuples(KINDS, SIZES | st.none()), min_size=1, max_size=3))
def test_invented_records_fit_their_inputs_and_differ(
    kinds: list[tuple[np.dtype, tuple[int | None, ...] | None]],
) -> None:
    specs = [spec(f"x{place}", shape, dtype) for place, (dtype, shape) in enumerate(kinds)]
    for shapes in invented_shapes(specs):
        if any(64 in shape for shape in shapes.values()):
            continue
        mild, wild = records(specs, shapes, 3)
        for record in (*mild, *wild, *extremes(specs, shapes)):
            for one in specs:
                assert isinstance(record[one.name], np.ndarray)
                assert record[one.name].dtype == one.dtype
                assert fits(record[one.name].shape, one.shape)
        for one in specs:
            if one.dtype.kind == "f" and all(shapes[one.name]):
                assert not any(np.array_equal(wild[0][one.name], other[one.name]) for other in wild[1:])
                assert np.isfinite(np.array([record[one.name] for record in wild], np.float64)).all()


def test_images_are_tried_in_the_sizes_of_images() -> None:
    shapes = [one["x"] for one in invented_shapes([spec(shape=(3, None, None))])]
    assert (3, 224, 224) in shapes
    assert all(shape[0] == 3 and shape[1] == shape[2] for shape in shapes)
    assert [one["x"] for one in invented_shapes([spec(shape=(2, 3))])] == [(2, 3)]


def test_whole_numbers_may_start_above_zero_and_reach_the_edges_of_their_types() -> None:
    ids = spec(dtype=np.dtype(np.int64), shape=(40,))
    mild, wild = records([ids], {"x": (40,)}, 2, least=1)
    assert min(record["x"].min() for record in (*mild, *wild)) == 1
    numbers = np.concatenate([record["x"] for record in extremes([ids], {"x": (40,)})])
    assert numbers.min() == -(2**63)
    assert numbers.max() == 2**63 - 1
    bounded = np.concatenate([record["x"] for record in extremes([ids._replace(below=2**31)], {"x": (40,)})])
    assert (bounded.min(), bounded.max()) == (-(2**31), 2**31 - 1)
    assert not list(extremes([spec()], {"x": (2,)}))


def test_nan_and_infinity_come_in_floats_and_the_record_stays_as_it_was() -> None:
    record = {"x": np.ones(4, np.float32), "ids": np.ones(4, np.int64)}
    changed = list(not_finite(record))
    assert [str(one["x"][0]) for one in changed] == ["nan", "inf", "-inf"]
    assert np.isfinite(record["x"]).all()
    assert all(np.array_equal(one["ids"], record["ids"]) for one in changed)
    assert list(not_finite({"ids": record["ids"]})) == []


def test_without_a_sample_nothing_is_given() -> None:
    assert sampled([spec()], ModelOptions()) == ([], None)


@pytest.mark.parametrize(
    ("array", "count"), [(np.zeros(2, np.float32), 1), (np.zeros((3, 2), np.float32), 3), (np.zeros((3, 2)), 3)]
)
def test_an_npz_has_one_record_or_several(tmp_path: Path, array: np.ndarray, count: int) -> None:
    np.savez(tmp_path / "s.npz", any_name=array)
    rows, shapes = sampled([spec()], ModelOptions(sample=str(tmp_path / "s.npz")))
    assert [row["x"].dtype for row in rows] == [np.float32] * count
    assert shapes == {"x": (2,)}


def test_texts_of_an_npz_are_texts_one_by_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", t=np.array(["a", "b"]))
    rows, shapes = sampled([spec("t", (), STRING)], ModelOptions(sample=str(tmp_path / "s.npz")))
    assert [(row["t"].shape, row["t"].item(), row["t"].dtype) for row in rows] == [((), "a", STRING), ((), "b", STRING)]
    assert shapes == {"t": ()}


def test_two_inputs_are_found_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", image=np.ones((2, 3, 5, 5)), ids=np.arange(2))
    specs = [spec("image", (3, None, None)), spec("ids", (), np.dtype(np.int64))]
    rows, shapes = sampled(specs, ModelOptions(sample=str(tmp_path / "s.npz")))
    assert shapes == {"image": (3, 5, 5), "ids": ()}
    assert [row["ids"].item() for row in rows] == [0, 1]


def test_an_image_stands_for_its_size(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "s.png"), np.zeros((20, 30, 3), np.uint8))
    specs = [spec(shape=(3, None, None)), spec("n", (None,)), spec("last", (None, None, 3))]
    _, shapes = sampled(specs, ModelOptions(sample=str(tmp_path / "s.png")))
    assert shapes == {"x": (3, 20, 30), "n": (1,), "last": (20, 30, 3)}


@pytest.mark.parametrize("shapes", [(3, 8, 8), ((3, 8, 8),), {"x": (3, 8, 8)}])
def test_shapes_stand_for_themselves(shapes: Shapes) -> None:
    assert sampled([spec(shape=(3, None, None))], ModelOptions(sample=shapes)) == ([], {"x": (3, 8, 8)})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npz", None, "missing.npz cannot be read as .npz"),
        ("s.npz", b"no zip", "cannot be read as .npz"),
        ("s.png", b"no image", "is no image that can be read, and no .npz"),
        ("missing.png", None, "is no image that can be read"),
        ("wrong.npz", {"x": np.zeros(3)}, r"array 'x' is \[3\], the model takes \[2\]"),
        ("text.npz", {"x": np.array(["a", "b"])}, "array 'x' is text, the model takes float32"),
        ("objects.npz", {"x": np.array([{}], object)}, "cannot be read as .npz"),
        ("empty.npz", {"x": np.zeros((0, 2))}, r"array 'x' is \[0, 2\]"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, content: bytes | dict[str, np.ndarray] | None, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)  # type: ignore[arg-type]
    elif content is not None:
        path.write_bytes(content)

    with pytest.raises(ModelLoadError, match=f"model: sample: .*{message}"):
        sampled([spec()], ModelOptions(sample=str(path)))


@pytest.mark.parametrize("sample", [(4,), {"y": (2,)}, ((2,), (2,)), {"x": (2,), "y": (1,)}])
def test_shapes_that_do_not_fit_are_refused(sample: Shapes) -> None:
    with pytest.raises(ModelLoadError, match="model: sample: "):
        sampled([spec()], ModelOptions(sample=sample))


def test_every_input_but_a_single_value_needs_a_shape() -> None:
    specs = [spec(shape=None), spec("n", ())]
    assert sampled(specs, ModelOptions(sample=(7,))) == ([], {"x": (7,), "n": ()})
    with pytest.raises(ModelLoadError, match="the shape of 'x' is None, the model takes any"):
        sampled(specs, ModelOptions(sample={"n": ()}))


def test_an_array_that_is_missing_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", a=np.zeros(2), c=np.zeros(2))
    with pytest.raises(ModelLoadError, match=r"has no array 'b', its arrays are \['a', 'c'\]"):
        sampled([spec("a"), spec("b")], ModelOptions(sample=str(tmp_path / "s.npz")))
