"""Rows to decode into."""

import numpy as np

from beam_serving.transforms.batch_buffer import Rows


def test_rows_of_a_batch_lie_one_after_the_other_in_an_array_of_their_own() -> None:
    rows = Rows((2, 3), np.dtype(np.float32), 4)
    first = [rows.next() for _ in range(3)]
    rows.end_batch()
    second = [rows.next() for _ in range(5)]
    assert all(row.base is first[0].base for row in first)
    assert all(row.base is second[0].base for row in second[:4])
    assert len({id(row.base) for row in [*first, *second]}) == 3
    assert second[0].base.shape == (4, 2, 3)
    for index, row in enumerate(second[:4]):
        assert np.shares_memory(row, second[0].base[index])


def test_an_array_is_no_larger_than_it_must_be() -> None:
    assert Rows((1024, 1024), np.dtype(np.float32), 4096).next().base.shape[0] == 16
    assert Rows((10_000, 10_000), np.dtype(np.float32), 4096).next().base.shape[0] == 1
