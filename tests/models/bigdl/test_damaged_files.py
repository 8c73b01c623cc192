"""A damaged file is refused, or read as what it still says; it never crashes, hangs or takes the memory."""

import random
import time
from pathlib import Path

import pytest

from beam_serving.errors import ModelLoadError
from beam_serving.models.formats.bigdl import read_bigdl

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    ("net_inception", (3, 8, 8)),
    ("net_graph_two_in_two_out", ((4,), (5,))),
    ("rnn_text_bi", (7,)),
    ("int8_lenet", (12, 12)),
    ("keras_cnn", (3, 8, 8)),
    ("norm_contrastive", (3, 10, 11)),
]
SLOWEST_S = 10.0


def refusal(path: Path, shape: tuple[int, ...]) -> str | None:
    try:
        read_bigdl(path, None, shape)
    except ModelLoadError as err:
        return str(err)
    return None


@pytest.mark.parametrize(("case", "shape"), CASES)
def test_a_file_cut_at_any_percent_is_refused(tmp_path: Path, case: str, shape: tuple[int, ...]) -> None:
    contents = (GOLDEN / f"{case}.model").read_bytes()
    path = tmp_path / "cut.model"
    for percent in range(100):
        path.write_bytes(contents[: len(contents) * percent // 100])
        message = refusal(path, shape)
        # At the very end stands a list of all weights, which repeats what the layers said: it may be cut between two.
        assert message is not None or percent >= 95
        assert message is None or message.startswith(f"{path}: ")


@pytest.mark.parametrize(("case", "shape"), CASES)
def test_flipped_and_lost_bytes_end_in_one_error(tmp_path: Path, case: str, shape: tuple[int, ...]) -> None:
    contents = (GOLDEN / f"{case}.model").read_bytes()
    path = tmp_path / "damaged.model"
    choice = random.Random(case)  # noqa: S311
    for _ in range(150):
        damaged = bytearray(contents)
        for _ in range(choice.choice((1, 1, 2, 4))):
            place = choice.randrange(len(damaged))
            if choice.random() < 0.7:
                damaged[place] ^= 1 << choice.randrange(8)
            else:
                del damaged[place : place + choice.randrange(1, 4)]
        path.write_bytes(damaged)
        start = time.monotonic()
        message = refusal(path, shape)
        assert time.monotonic() - start < SLOWEST_S
        assert message is None or message.startswith(f"{path}: ")
