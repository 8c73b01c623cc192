"""The walk through a page notices what is wrong with it."""

from pathlib import Path

import pytest

from tests.pages import NOT_RUN, Walk, blocks_of, says

PAGE = """# A page

A file `greeting.txt`

    hello

and commands

    mkdir -p deeper && cd deeper
    python -c "print(open('../greeting.txt').read().strip(), 1 / 3)"

This prints, among others,

    hello 0.33

and a program

    import os

    print(os.path.basename(os.getcwd()))     # deeper


    def unused() -> None: ...

some JSON

    {"a": 1}

and a drawing

    a ──> b
"""


def walk(folder: Path, text: str, *substitutions: tuple[str, str, str]) -> dict[str, str]:
    """What each block printed, by its kind."""
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    here = folder / "walk"
    here.mkdir()
    return {block.kind: step.printed.strip() for block, step in Walk(here, substitutions).go(blocks_of(page)).items()}


def test_blocks_are_run_in_their_order(tmp_path: Path) -> None:
    said = walk(tmp_path, PAGE)
    assert list(said) == ["file", "shell", "output", "python", "json", "figure"]
    assert said["python"] == "deeper"
    assert said["shell"].startswith("hello 0.333")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("hello 0.33", "hello 0.34", "page.md:14 shows 'hello 0.34', and this was printed"),
        ("# deeper", "# higher", "page.md:18 shows 'higher', and this was printed:\ndeeper"),
        ("mkdir -p deeper", "mkdir deeper/too", "page.md:9 ended with 1:\nmkdir deeper/too"),
        ("import os\n", "import so\n", "page.md:18 ended with 1:\nimport so"),
    ],
)
def test_what_does_not_work_as_written_is_told(right: str, wrong: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        walk(tmp_path, PAGE.replace(right, wrong))
    assert told in str(caught.value)


def test_what_is_left_out_shows_nothing(tmp_path: Path) -> None:
    page = "Then\n\n    make run\n\nprints\n\n    all\n"
    assert walk(tmp_path, page, (r"^make .*", NOT_RUN, "")) == {"shell": "", "output": ""}


@pytest.mark.parametrize(
    ("wanted", "line", "same"),
    [
        ("7 0.9999 seven", "7 0.99989 seven", True),
        ("{7: 1.00}", "{7: 0.99989}", True),
        ("{7: 0.99}", "{7: 0.99989}", False),
        ("a  b", "a b", True),
        ("a 1", "a b", False),
        ("digit_7.png  x", "digit_8.png  x", False),
    ],
)
def test_numbers_may_have_fewer_digits(wanted: str, line: str, same: bool) -> None:
    assert says(wanted, line) == same
