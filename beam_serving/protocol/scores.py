"""The best classes of an output as JSON text: numbers by orjson, many at once, and what is around them by hand.

A score has the fewest digits that read back to the same value in its own precision; a whole number has all of them,
and is written as a float, since an integer stands for a class.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from beam_serving.protocol.text import from_array, text_json
from beam_serving.records import TopClasses

quoted = lru_cache(maxsize=4096)(json.dumps)
"""JSON text of a string, remembered: names of classes and outputs recur."""


def top_json(top: TopClasses) -> bytes:
    """Return `[[class,score],...]` in the order of `top`; a score that is NaN or infinite is `null`."""
    return top_json_rows(top.classes[np.newaxis], top.scores[np.newaxis])[0]


def top_json_rows(classes: np.ndarray, scores: np.ndarray) -> list[bytes]:
    """Return the text of `top_json` for each row of classes and scores, both of shape (records, n)."""
    # Imported here: of clients, which have this module too, none writes results.
    import orjson

    records, n = scores.shape
    if not scores.size:
        return [b"[]"] * records
    indices = orjson.dumps(np.ascontiguousarray(classes), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2]
    pairs = [b"[%b,%b]" % pair for pair in zip(_split(indices), _number_texts(scores), strict=True)]
    if n == 1:
        return [b"[%b]" % pair for pair in pairs]
    return [b"[%b]" % b",".join(pairs[first : first + n]) for first in range(0, records * n, n)]


def _split(rows: bytes) -> list[bytes]:
    return rows.replace(b"],[", b",").split(b",")


def _number_texts(scores: np.ndarray) -> list[bytes]:
    if scores.dtype in (np.float32, np.float64):
        import orjson

        return _split(orjson.dumps(np.ascontiguousarray(scores), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2])
    # of all that is written here only nan and inf have an n
    return [b"null" if "n" in text else text.encode() for text in map(str, _as_texts(scores.reshape(-1)))]


def top_json_of_strings(top: TopClasses) -> str:
    """Return `{"class":"score",...}` as 0.7 wrote it; NaN and infinity are strings that Java and Python read."""
    scores = _as_texts(top.scores)
    text = ",".join([f'"{index}":"{scores[row]!s}"' for row, index in enumerate(top.classes.tolist())])
    if "n" in text:
        text = text.replace("inf", "Infinity").replace("nan", "NaN")
    return f"{{{text}}}"


def nested_json(values: np.ndarray) -> str:
    """Return a whole tensor as nested lists of floats; what is NaN or infinite is `null`."""
    if values.ndim:
        return f"[{','.join(map(nested_json, values))}]"
    text = str(_as_texts(values.reshape(1))[0])
    return "null" if "n" in text else text


def nested_text_json(texts: np.ndarray) -> str:
    """Return texts as nested lists, one that stands alone as a list of one."""
    return text_json(np.atleast_1d(texts)).decode()


def texts_as_object(texts: np.ndarray) -> str:
    """Return `{"0":"<text>",...}`, numbered in C order as the values of a tensor are in 0.7."""
    return json.dumps({str(index): text for index, text in enumerate(from_array(texts).reshape(-1).tolist())})


def labels_json(top: TopClasses, labels: tuple[str, ...]) -> str:
    """Return the names of the classes of `top` as a JSON list; `null` for a class beyond the last name."""
    known = len(labels)
    names = [quoted(labels[index]) if 0 <= index < known else "null" for index in top.classes.tolist()]
    return f"[{','.join(names)}]"


def object_json(members: Iterable[tuple[str, str]]) -> str:
    """Join names and the JSON texts of their values to one JSON object."""
    return "{" + ",".join([f"{quoted(name)}:{text}" for name, text in members]) + "}"


def _as_texts(scores: np.ndarray) -> Sequence[object]:
    """Return what `str` makes the texts of: floats as they are, since a list of them all would cost more than one."""
    if scores.dtype.kind == "f":
        return scores  # type: ignore[return-value]
    if scores.dtype.kind in "iu":
        return [f"{score}.0" for score in scores.tolist()]
    # bool has no JSON text as a number, and bfloat16 (ml_dtypes) is of no kind that numpy knows
    return [str(score) for score in scores.astype(np.float64)]
