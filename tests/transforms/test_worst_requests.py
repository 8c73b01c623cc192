"""No request takes a worker: what docs/limits.md says of memory and time is measured, in processes of their own."""

import re
from pathlib import Path

import pytest

from tests.hostile.measure import Cost, costs
from tests.hostile.requests import CASES

MOST_MB, MOST_S = 512, 5.0
TABLE = (Path(__file__).parents[2] / "docs/limits.md").read_text(encoding="utf-8")
QUICK = (
    "jpeg progressive, small with scans",
    "png grey, free size",
    "sides 65535x1, crop",
    "sides 1000000x1, crop",
    "sides 1x65535, crop, free",
    "json empty lists",
    "arrow shared",
    "arrow sparse, inputs",
)
"""Those that are made quickly, of each kind."""


def assert_within(measured: list[Cost]) -> None:
    worst = [cost for cost in measured if not (0 <= cost.peak_mb <= MOST_MB and 0 <= cost.cpu_s <= MOST_S)]
    assert not worst, "\n".join(map(str, worst))


def test_a_request_of_each_kind_takes_no_more_than_is_promised() -> None:
    measured = costs(QUICK)
    assert len(measured) >= len(QUICK)
    assert_within(measured)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_request_takes_more_than_is_promised() -> None:
    measured = costs()
    assert len(measured) == len(CASES)
    assert_within(measured)


def test_the_table_names_kinds_that_are_measured() -> None:
    named = re.findall(r"^\| `([^`]+)`", TABLE.partition("## Measured")[2], re.MULTILINE)
    assert len(named) >= 10
    assert not set(named) - CASES.keys()


def test_the_table_promises_what_is_asserted() -> None:
    assert f"at most {MOST_MB} MB of memory" in TABLE
    assert f"{MOST_S:g} s of a worker" in TABLE
