"""Results as tables."""

import builtins
from typing import Any

import numpy as np
import pytest

from beam_serving.client import ClientError, ResultError, to_pandas
from beam_serving.client.arrays import comparable


def test_pandas_is_asked_for_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_pandas(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ClientError, match=r"^a DataFrame needs pandas: pip install 'beam-serving\[pandas\]'$"):
        to_pandas({1: 0.5})


def test_best_classes_are_rows() -> None:
    pytest.importorskip("pandas")
    frame = to_pandas({3: 0.75, 1: 0.25})
    assert frame.to_dict("list") == {"class": [3, 1], "score": [0.75, 0.25]}


def test_a_tensor_has_its_first_axis_as_rows() -> None:
    pytest.importorskip("pandas")
    assert to_pandas(np.arange(3)).to_dict("list") == {"value": [0, 1, 2]}
    assert to_pandas(np.array(1.5)).to_dict("list") == {"value": [1.5]}
    assert to_pandas(np.zeros((0, 2, 2))).shape == (0, 4)
    assert to_pandas(np.arange(12).reshape(2, 3, 2)).shape == (2, 6)


def test_an_array_in_old_code_has_it_as_a_method() -> None:
    pytest.importorskip("pandas")
    assert comparable(np.arange(3)).to_pandas().to_dict("list") == {"value": [0, 1, 2]}


def test_results_by_uri_are_below_each_other() -> None:
    pytest.importorskip("pandas")
    frame = to_pandas({"a": {3: 0.75, 1: 0.25}, "b": {2: 0.5}, "c": ResultError("no image")})
    assert frame.index.tolist() == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    assert frame.loc["a", "class"].tolist() == [3, 1]
    assert frame.loc[("c", 0), "error"] == "no image"
    assert to_pandas([np.zeros(2), np.zeros(1)]).index.tolist() == [(0, 0), (0, 1), (1, 0)]


def test_texts_are_values() -> None:
    pytest.importorskip("pandas")
    assert to_pandas("größer").to_dict("list") == {"value": ["größer"]}
    assert to_pandas(np.array(["a", "b"], object)).to_dict("list") == {"value": ["a", "b"]}
    assert to_pandas({"label": "a", "p": {3: 0.5}}).index.tolist() == [("label", 0), ("p", 0)]


def test_what_is_no_result_is_refused() -> None:
    pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"^str '\[\]' is no result$"):
        to_pandas("[]")
