"""The comments of a YAML file, by the key that they stand at."""

from pathlib import Path

import pytest

from beam_serving.config.legacy.comments import Comments, comments, places
from beam_serving.config.yaml_file import parse_yaml


def comments_of(text: str) -> Comments:
    file = parse_yaml(Path("a.yaml"), text)
    return comments(file, places(file))


def test_a_comment_belongs_to_the_key_on_its_line_or_to_the_next_one() -> None:
    found = comments_of("# one\na: 1  # two\n\n# three\n# four\nb: 2\n# five\n")
    assert found.above == {"a": ["# one"], "b": ["# three", "# four"]}
    assert found.beside == {"a": "# two"}
    assert found.footer == ["# five"]
    assert found.header == []


@pytest.mark.parametrize("text", ["## title\n# of a\na: 1\n", "## title\n\n# of a\na: 1\n", "# title\n\n# of a\na: 1"])
def test_the_title_of_a_file_belongs_to_no_key(text: str) -> None:
    found = comments_of(text)
    assert [line.lstrip("# ") for line in found.header] == ["title"]
    assert found.above == {"a": ["# of a"]}


def test_sections_have_comments_of_their_own() -> None:
    found = comments_of("a:  # beside\n  # of x\n  x: 1\n  # below\n# of b\nb:\n  # below b\n")
    assert found.beside == {"a": "# beside"}
    assert found.above == {"a.x": ["# of x"], "b": ["# of b"]}
    assert found.below == {"a.x": ["# below"], "b": ["# below b"]}


def test_what_stands_inside_of_a_value_is_no_comment() -> None:
    found = comments_of("a: \"x # y\"\nb: x#y\nc: 'z' # real\nd: |\n  text\n  # text\ne: 1\n")
    assert found.beside == {"c": "# real"}
    assert (dict(found.above), dict(found.below)) == ({}, {})


def test_a_block_of_text_may_have_a_comment_behind_its_mark() -> None:
    found = comments_of("a: |  # of a\n  text  # in it\n\n# of b\nb: >-  # beside b\n  # in it\n")
    assert found.beside == {"a": "# of a", "b": "# beside b"}
    assert found.above == {"b": ["# of b"]}


def test_comments_inside_a_list_go_above_its_key() -> None:
    found = comments_of("a:\n  list:\n    - 1  # first\n    # between\n    - 2\n  # of x\n  x: 1\n")
    assert found.above == {"a.list": ["# first", "# between"], "a.x": ["# of x"]}


def test_a_section_in_one_line_gives_its_comment_to_its_first_key() -> None:
    assert comments_of("a: {x: 1, y: 2}  # both\n").beside == {"a.x": "# both"}


def test_a_file_of_comments_and_one_key_keeps_all_of_them() -> None:
    found = comments_of("# a\n\n# b\n\nx: # c\n\n# d")
    assert (found.header, found.beside, found.footer) == (["# a", "# b"], {"x": "# c"}, ["# d"])
