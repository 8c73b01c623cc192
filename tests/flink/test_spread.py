"""The names that give each task of Flink one reader."""

import pytest

from beam_serving.launch.flink.task_assignment import names_for_tasks, task_of


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("host-0", [0, 1, 0, 1, 1, 3, 1, 1]),
        ("host-1", [0, 0, 0, 0, 1, 0, 0, 0]),
        ("höst-17", [0, 1, 0, 1, 0, 3, 2, 5]),
        ("a", [0, 1, 2, 3, 0, 5, 3, 3]),
        ("", [0, 1, 2, 3, 3, 5, 4, 3]),
    ],
)
def test_the_hash_is_flinks(name: str, tasks: list[int]) -> None:
    # What KeyGroupRangeAssignment.assignKeyToParallelOperator of Flink 1.19 gives at a parallelism of 1 to 8.
    assert [task_of(name, parallelism) for parallelism in range(1, 9)] == tasks


@pytest.mark.parametrize("parallelism", [1, 2, 3, 4, 16])
def test_each_task_has_one_name(parallelism: int) -> None:
    names = names_for_tasks("host-1a2b", parallelism)
    assert [task_of(name, parallelism) for name in names] == list(range(parallelism))


def test_a_name_that_beam_would_encode_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="has more than 127 bytes"):
        task_of("x" * 128, 2)
