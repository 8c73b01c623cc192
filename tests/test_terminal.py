"""Nothing of a request or a file reaches a log or a terminal as anything but text that can be seen."""

import io
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from beam_serving.cli.terminal import say
from beam_serving.errors import printable, printable_lines
from beam_serving.telemetry.logs import LogOptions, configure_logging

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "a\nERROR [worker] forged",
    "\r",
    "\x9b1A",
    "\u202egnp.exe",
    "\u2028",
    "\ud800",
    "\x00\x07",
]


@given(some.text() | some.sampled_from(HOSTILE))
def test_what_is_printable_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert all(
        unicodedata.category(char)[0] != "C" and unicodedata.category(char) not in ("Zl", "Zp")
        for char in shown.replace("\t", "")
    )
    assert shown.encode() or not text
    assert printable(shown) == shown


@given(some.text(some.characters(exclude_categories=("C", "Z"))))
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable_lines(f"{text}\n{text}") == f"{text}\n{text}"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_record_of_the_log_is_one_line_whatever_is_in_it(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    root, ours = logging.getLogger(), logging.getLogger("beam_serving")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    try:
        configure_logging(LogOptions(), "worker")
        logging.getLogger("beam_serving.test").warning("refused: %s", hostile)
        try:
            raise ValueError(hostile)
        except ValueError:
            logging.getLogger("beam_serving.test").exception("failed on %s", hostile)
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [lines[0], lines[1]]
    assert lines[0].endswith(f"WARNING [worker] refused: {printable(hostile)}")
    assert all(printable(line) == line for line in lines)


def test_what_is_said_has_its_lines_and_no_escapes() -> None:
    out = io.StringIO()
    say("one\ntwo \x1b[2J", to=out)
    assert out.getvalue() == "one\ntwo \\x1b[2J\n"
