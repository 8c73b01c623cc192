"""What `enqueue` makes of files: which are found, what their requests carry, and what is said of the others."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.cli.input_files import Found, NotUsableError, Row, Source, find, rows_of, tensors_of
from beam_serving.errors import ConfigError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the current one, with files in it and below it."""
    for name in ("a/1.png", "a/2.JPG", "a/b/1.png", "a/b/c/3.npy", "a/notes.txt", "a/.git/4.png", "d/1.png", "e.bin"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uris(*given: str, recursive: bool = False) -> dict[str, str]:
    return {source.path: source.uri for source in find(given, recursive=recursive).sources}


def test_a_file_that_is_named_has_its_name(tree: Path) -> None:
    assert uris("a/1.png", "e.bin") == {"a/1.png": "1.png", "e.bin": "e.bin"}
    assert uris(str(tree / "a/1.png")) == {str(tree / "a/1.png"): "1.png"}


def test_files_of_a_folder_have_the_way_to_them(tree: Path) -> None:
    assert uris("a") == {"a/1.png": "1.png", "a/2.JPG": "2.JPG"}
    assert uris("a/", recursive=True) == {
        "a/1.png": "1.png",
        "a/2.JPG": "2.JPG",
        "a/b/1.png": "b/1.png",
        "a/b/c/3.npy": "b/c/3.npy",
    }
    assert find(["a"], recursive=True).skipped == [
        ("a/.git", "is hidden"),
        ("a/notes.txt", "is of no known kind; name it to send it as an image"),
    ]
    assert ("a/b", "is a folder; --recursive takes what is in it") in find(["a"], recursive=False).skipped


def test_a_pattern_is_what_it_is_for_a_shell(tree: Path) -> None:
    assert uris("a/*.png") == {"a/1.png": "1.png"}
    assert uris("*/1.png") == {"a/1.png": "a/1.png", "d/1.png": "d/1.png"}
    assert uris("a/**/*.png") == {"a/1.png": "1.png", "a/b/1.png": "b/1.png"}
    assert uris("[de]*") == {"d/1.png": "1.png", "e.bin": "e.bin"}
    (tree / "[x].png").write_bytes(b"x")
    assert uris("[x].png") == {"[x].png": "[x].png"}


def test_two_files_of_one_name_have_the_paths_that_were_given(tree: Path) -> None:
    assert uris("a/1.png", "d/1.png", "a/2.JPG") == {"a/1.png": "a/1.png", "d/1.png": "d/1.png", "a/2.JPG": "2.JPG"}
    assert uris("a", "d") == {"a/1.png": "a/1.png", "a/2.JPG": "2.JPG", "d/1.png": "d/1.png"}


def test_a_file_is_sent_once(tree: Path) -> None:
    found = find(["a/1.png", "a", str(tree / "a/1.png"), "a/../a/1.png"], recursive=False)
    assert [source.uri for source in found.sources] == ["1.png", "2.JPG"]
    assert [reason for _, reason in found.skipped].count("was named before") == 3


def test_links_do_not_lead_round_in_circles(tree: Path) -> None:
    (tree / "a/b/up").symlink_to(tree / "a")
    (tree / "a/gone.png").symlink_to(tree / "nowhere.png")
    found = find(["a"], recursive=True)
    assert len(found.sources) == 4
    assert ("a/b/up", "is a link to a folder") in found.skipped
    assert ("a/gone.png", "is of no known kind; name it to send it as an image") in found.skipped
    for name in ("l1", "l2"):
        (tree / name).symlink_to(tree)
    for pattern, count in (("**/1.png", 3), ("a/**", 5), (f"{tree}/**/1.png", 3), ("**/b/**/1.png", 1)):
        assert len(find([pattern], recursive=False).sources) == count, pattern


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("none.png", "none.png: there is no such file"),
        ("*.gif", "*.gif: matches no file"),
        ("/dev/null", "/dev/null: is no file"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_sent(tree: Path, given: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(["a", given], recursive=False)
    assert str(caught.value) == said


def test_how_many_there_are_is_known_where_each_file_is_one() -> None:
    sources = [Source("a.png", "a"), Source("b.npy", "b")]
    assert Found(sources, []).requests(by_row=False) == 2
    assert Found(sources, []).requests(by_row=True) is None
    assert Found([*sources, Source("c.csv", "c")], []).requests(by_row=False) is None
    assert Found([Source("-", "stdin")], []).requests(by_row=False) is None


def rows(path: Path, content: bytes | str, **how: bool) -> list[tuple[str, Any]]:
    """Gives uri and inputs of the rows of a file, or the reason against one."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [
        (row.uri, str(row.inputs) if isinstance(row.inputs, NotUsableError) else row.inputs)
        for row in rows_of(Source(str(path), path.name), **how)
    ]


def test_lines_of_json_are_inputs_by_name_or_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    text = """\
{"uri": "a", "x": [1.5, 2], "text": "hello"}
{"uri": 7, "image": {"path": "cat.jpg"}}

[1, 2, 3]
"only text"
5
{"image": {"b64": "Y2F0"}}
"""
    assert rows(tmp_path / "r.jsonl", text) == [
        ("a", {"x": [1.5, 2], "text": "hello"}),
        ("7", {"image": b"cat"}),
        ("r.jsonl:4", {"": [1, 2, 3]}),
        ("r.jsonl:5", {"": "only text"}),
        ("r.jsonl:6", {"": 5}),
        ("r.jsonl:7", {"image": b"cat"}),
    ]


WANTED = 'wanted is numbers or texts in lists, or of an image {"path": "cat.jpg"} or {"b64": "..."}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON (Expecting property name enclosed in double quotes at column 3)"),
        ("[" * 100_000, "is no JSON that is read (nested too deep)"),
        ("{}", 'has no input, wanted is {"NAME OF AN INPUT": VALUE}'),
        ('{"uri": "a"}', 'has no input, wanted is {"NAME OF AN INPUT": VALUE}'),
        ('{"uri": [1], "x": 1}', "its uri is [1], wanted is text"),
        ('{"uri": true, "x": 1}', "its uri is true, wanted is text"),
        ("null", f"input '' is null, {WANTED}"),
        ('{"x": true}', f"input 'x' is true, {WANTED}"),
        ('{"x": {"y": 1}}', f"input 'x' is {{\"y\": 1}}, {WANTED}"),
        ('{"x": {"path": "none.jpg"}}', "cannot be read (No such file or directory)"),
        ('{"x": {"path": "a\\u0000b"}}', "cannot be read (embedded null byte)"),
        ('{"x": {"b64": "%%"}}', "input 'x' is no base64 ("),
        (f"[{'9' * 5000}]", "is no JSON that is read (a number with too many digits)"),
    ],
)
def test_a_line_that_is_no_request_is_told_and_the_next_ones_are_read(line: str, said: str, tmp_path: Path) -> None:
    (_, told), after = rows(tmp_path / "r.jsonl", f"{line}\n[1]\n")
    assert told.startswith(said)
    assert after == ("r.jsonl:2", {"": [1]})


def test_a_row_names_no_file_outside_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s3cret")
    (folder / "sub/cat.jpg").write_bytes(b"cat")
    (folder / "link").symlink_to(tmp_path / "secret")
    lines = [
        json.dumps({"x": {"path": path}})
        for path in ("sub/cat.jpg", f"{folder}/sub/../sub/cat.jpg", f"{tmp_path}/secret", "../secret", "link")
    ]
    outside = "is not in the folder of its rows, or below it"
    assert rows(folder / "r.jsonl", "\n".join(lines)) == [
        ("r.jsonl:1", {"x": b"cat"}),
        ("r.jsonl:2", {"x": b"cat"}),
        ("r.jsonl:3", f"the image {f'{tmp_path}/secret'[:40]!r} {outside}"),
        ("r.jsonl:4", f"the image '../secret' {outside}"),
        ("r.jsonl:5", f"the image 'link' {outside}"),
    ]
    monkeypatch.chdir(folder)
    assert [row.inputs for row in rows_of(Source("r.jsonl", "r"))][:2] == [{"x": b"cat"}, {"x": b"cat"}]


def test_a_row_of_a_table_is_one_tensor_or_an_input_for_each_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert rows(path, "a,b\n1,2.5\n\n3,4\n") == [("t.csv:2", {"": [1, 2.5]}), ("t.csv:4", {"": [3, 4]})]
    assert rows(path, "1,2\n3,4\n") == [("t.csv:1", {"": [1, 2]}), ("t.csv:2", {"": [3, 4]})]
    assert rows(path, "uri,a\nx,1\n,2\n") == [("x", {"": [1]}), ("t.csv:3", {"": [2]})]
    assert rows(path, 'a;b\n1;"x;y"\n', by_column=True) == [("t.csv:2", {"a": 1, "b": "x;y"})]
    assert rows(path, 'uri,text\nu,"two\nlines"\n', by_column=True) == [("u", {"text": "two\nlines"})]
    assert rows(tmp_path / "t.tsv", "a\tb\n1\t-2e3\n") == [("t.tsv:2", {"": [1, -2000.0]})]
    assert rows(path, "") == []


@pytest.mark.parametrize(
    ("text", "uri", "said"),
    [
        ("a,b\n1,2,3\n", "t.csv:2", "has 3 cells, wanted is one for each of 2 columns"),
        (
            "a,b\n1,\n",
            "t.csv:2",
            "column 'b' has '', wanted is a number; --by-column sends each column as an input of its own",
        ),
        ("a,a\n1,2\n", "t.csv", "its first line wants a name for each column, each once ('a,a')"),
        ("a,\n1,2\n", "t.csv", "its first line wants a name for each column, each once ('a,')"),
        ('a,b\n1,"2\n', "t.csv", "line 2 is no row (unexpected end of data)"),
    ],
)
def test_a_row_that_is_none_is_told(text: str, uri: str, said: str, tmp_path: Path) -> None:
    assert rows(tmp_path / "t.csv", text) == [(uri, said)]


def test_columns_without_names_cannot_be_inputs(tmp_path: Path) -> None:
    assert rows(tmp_path / "t.csv", "1,2\n", by_column=True) == [
        ("t.csv", "has no line of names, and each column wants one")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_and_lines_are_text_files_as_others(encoding: str, end: str, tmp_path: Path) -> None:
    table = end.join(["größe", "1", "2"]).encode(encoding)
    assert rows(tmp_path / "t.csv", table, by_column=True) == [("t.csv:2", {"größe": 1}), ("t.csv:3", {"größe": 2})]
    lines = end.join(['"ä"', "2", ""]).encode(encoding)
    assert rows(tmp_path / "t.jsonl", lines) == [("t.jsonl:1", {"": "ä"}), ("t.jsonl:2", {"": 2})]


def test_a_file_that_is_no_text_is_told_once(tmp_path: Path) -> None:
    assert rows(tmp_path / "t.csv", b"a\n\xff\n1\n") == [("t.csv", "is not UTF-8 text")]
    assert [row.uri for row in rows_of(Source(str(tmp_path / "none.jsonl"), "none.jsonl"))] == ["none.jsonl"]


def test_arrays_are_requests_whole_or_by_row(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(4).reshape(2, 2), t=np.array(["a", "b"]))
    source = Source(str(tmp_path / "a.npz"), "a.npz")
    (whole,) = rows_of(source)
    assert isinstance(whole.inputs, dict)
    assert whole.uri == "a.npz"
    assert {name: array.tolist() for name, array in whole.inputs.items()} == {"x": [[0, 1], [2, 3]], "t": ["a", "b"]}
    first, second = rows_of(source, by_row=True)
    assert (first.uri, second.uri) == ("a.npz:0", "a.npz:1")
    assert isinstance(second.inputs, dict)
    assert {name: array.tolist() for name, array in second.inputs.items()} == {"x": [2, 3], "t": "b"}


@pytest.mark.parametrize(
    "arrays",
    [{"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}, {"x": np.zeros(())}, {"x": np.zeros(2), "y": np.zeros(())}],
)
def test_arrays_without_the_same_rows_have_none(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    (row,) = rows_of(Source(str(tmp_path / "a.npz"), "a.npz"), by_row=True)
    assert str(row.inputs).startswith("has no rows, or not as many in each array (x ")


def trap(trace: Path) -> bytes:
    """Gives a pickle that would leave a trace if it were loaded: by hand, since nothing here makes or loads any."""
    shell = f"touch {trace}".encode()
    return b"\x80\x02cposix\nsystem\nX" + len(shell).to_bytes(4, "little") + shell + b"\x85R."


def trapped(trace: Path) -> bytes:
    """Gives a file of NumPy that says it holds objects, and holds the trap."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return file.getvalue() + trap(trace)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name, content in (
        ("a.npy", trapped(trace)),
        ("b.npz", zipped(x=saved(np.zeros(1)), y=trapped(trace))),
        ("c.npy", trap(trace)),
        ("d.npz", trap(trace)),
    ):
        ((uri, said),) = rows(tmp_path / name, content)
        assert uri == name
        assert said.startswith("holds Python objects, which are never loaded, since that could run anything; save ")
    assert not trace.exists()


COMPRESSIONS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bz2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}
ENCRYPTED = zipped(x=saved(np.zeros(1))).replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01")
HUGE = saved(np.zeros(1)).replace(b"'shape': (1,)", b"'shape': (10000000000000,)", 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"PK\x03\x04", saved(np.zeros(4))[:-5], HUGE, zipped(), zipped(x=b"no"), b"\x93NUMPY\x01\x00"],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_broken_array_is_told(content: bytes, name: str, tmp_path: Path) -> None:
    ((uri, said),) = rows(tmp_path / name, content)
    assert uri == name
    assert said.startswith(("holds no tensor", "holds more than", "cannot be read (")), said


def test_an_encrypted_array_is_told(tmp_path: Path) -> None:
    ((_, said),) = rows(tmp_path / "a.npz", ENCRYPTED)
    assert said.startswith("holds no tensors that NumPy reads (File 'x.npy' is encrypted, password required"), said


@given(
    kind=some.sampled_from(["npy", *COMPRESSIONS]),
    changes=some.lists(some.tuples(some.integers(0, 1000), some.integers(0, 255)), min_size=1, max_size=4),
)
def test_an_array_with_some_bytes_changed_is_read_or_told(
    kind: str, changes: list[tuple[int, int]], tmp_path_factory: Any
) -> None:
    content = bytearray(saved(np.arange(20.0)))
    if kind != "npy":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", COMPRESSIONS[kind]) as file:
            file.writestr("a.npy", bytes(content))
        content = bytearray(archive.getvalue())
    for place, byte in changes:
        content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / f"changed.{'npy' if kind == 'npy' else 'npz'}"
    path.write_bytes(content)
    for row in rows_of(Source(str(path), "a")):
        assert isinstance(row.inputs, NotUsableError | dict)


@given(
    content=some.binary(max_size=200),
    name=some.sampled_from(["a.npy", "a.npz", "a.jsonl", "a.csv", "a.tsv", "a.png"]),
    flag=some.booleans(),
)
def test_whatever_is_in_a_file_it_is_rows_or_reasons(
    content: bytes, name: str, flag: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    for row in rows_of(Source(str(path), name), by_row=flag, by_column=flag):
        assert isinstance(row, Row)
        assert row.uri
        assert isinstance(row.inputs, NotUsableError) or row.inputs


@given(
    table=some.lists(some.lists(some.integers(-(2**60), 2**60) | some.floats(allow_nan=False), min_size=2, max_size=2))
)
def test_numbers_of_a_table_stay_what_they_are(table: list[list[float]], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "n.csv"
    path.write_text("a,b\n" + "".join(f"{first!r},{second!r}\n" for first, second in table), encoding="utf-8")
    assert [row.inputs for row in rows_of(Source(str(path), "n"))] == [{"": row} for row in table]


@given(inputs=some.dictionaries(some.text(min_size=1).filter(lambda name: name != "uri"), some.lists(some.integers())))
def test_lines_of_json_carry_what_they_say(inputs: dict[str, list[int]], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "j.jsonl"
    path.write_text(json.dumps({"uri": "u", "": 1, **inputs}), encoding="utf-8")
    (row,) = rows_of(Source(str(path), "j"))
    assert (row.uri, row.inputs) == ("u", {"": 1, **inputs})


def test_a_tensor_is_read_as_it_was_saved(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    ((name, found),) = tensors_of(tmp_path / "a.npy").items()
    assert name == ""
    assert found.dtype == np.int16
    assert found.tolist() == array.tolist()
