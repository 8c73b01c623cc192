"""What OpenVINO is known to compute otherwise is told of small graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from beam_serving.models.engines.openvino_rules import facts_of, table_sizes

Graph = Callable[..., Any]


def facts(graph: Graph, *types: Any) -> Any:
    inputs = [ops.parameter([-1, 4], kind, name=f"in{place}") for place, kind in enumerate(types)]
    made = graph(*inputs)
    return facts_of(ov.Model([ops.result(made)], inputs, "m"))


def const(*values: Any, kind: Any = np.int64) -> Any:
    return ops.constant(np.array(values, kind))


I64, I32, I8, F32, F64, BOOL = np.int64, np.int32, np.int8, np.float32, np.float64, np.bool_


@pytest.mark.parametrize(
    ("graph", "types", "doubts"),
    [
        (ops.relu, [F32], []),
        (lambda x: ops.matmul(x, ops.constant(np.ones((4, 2), np.float32)), False, False), [F32], []),
        (ops.abs, [F64], ["float64"]),
        (lambda x: ops.convert(x, "f32"), [F64], ["float64"]),
        # Integers that a request sends are looked up and compared, not computed with.
        (lambda x: ops.gather(ops.constant(np.ones((9, 2), np.float32)), x, const(0)), [I64], []),
        (lambda x: ops.convert(ops.equal(x, const(1)), "f32"), [I64], []),
        (lambda x: ops.convert(x, "f32"), [I64], []),
        (lambda x: x, [I64], ["whole numbers (output of i64)"]),
        (lambda x: ops.reshape(x, const(-1), False), [I64], ["whole numbers (output of i64)"]),
        (lambda x: x, [I32], []),
        (ops.add, [I64, I64], ["whole numbers (Add of i64)", "whole numbers (output of i64)"]),
        (lambda x: ops.convert(ops.add(x, const(1)), "f32"), [I64], ["whole numbers (Add of i64)"]),
        (ops.divide, [I8, I8], ["whole numbers (Divide of i8)"]),
        (lambda x: ops.convert(ops.multiply(x, x), "f32"), [I32], ["whole numbers (Multiply of i32)"]),
        (lambda x: ops.convert(x, "i8"), [I32], ["whole numbers (Convert of i32 to i8)"]),
        # What is made of floats may be as large.
        (
            lambda x: ops.convert(x, "i64"),
            [F32],
            ["whole numbers (Convert of f32 to i64)", "whole numbers (output of i64)"],
        ),
        (
            lambda x: ops.gather(ops.constant(np.ones((9, 2), np.float32)), ops.convert(x, "i64"), const(0)),
            [F32],
            ["whole numbers (Convert of f32 to i64)"],
        ),
        # Sizes and places are small.
        (lambda x: ops.add(ops.shape_of(x), const(1)), [F32], []),
        (
            lambda x: ops.topk(x, ops.constant(np.int64(2)), 1, "max", "value").output(1),
            [F32],
            [],
        ),
        (lambda x: ops.non_zero(x), [F32], []),
        (lambda x: ops.logical_not(x), [BOOL], []),
        # Constants beyond 32 bits are wrong but where they mean "to the end".
        (
            lambda x: ops.convert(ops.equal(x, const(2**40)), "f32"),
            [I64],
            ["whole numbers beyond 32 bits (Equal)", "whole numbers (Equal of i64)"],
        ),
        (
            lambda x: ops.gather_nd(ops.constant(np.ones(9, np.float32)), ops.unsqueeze(x, const(2)), 0),
            [I64],
            ["places that a request sends (GatherND)"],
        ),
        (lambda x: ops.gather_nd(x, const(0)), [F32], []),
        # Integers are compared as float32, which keeps small ones apart from all others.
        (lambda x: ops.convert(ops.greater(x, const(2**24 - 1)), "f32"), [I64], []),
        (lambda x: ops.convert(ops.greater(x, const(2**24)), "f32"), [I64], ["whole numbers (Greater of i64)"]),
        (lambda x, y: ops.convert(ops.equal(x, y), "f32"), [I32, I32], ["whole numbers (Equal of i32)"]),
        (lambda x: ops.convert(ops.convert(x, "f16"), "f32"), [F32], ["float16"]),
        (lambda x: ops.add(x, ops.convert(ops.constant(np.ones(4, np.float16)), "f32")), [F32], []),
        (lambda x: ops.slice(x, const(0), const(2**62), const(1), const(1)), [F32], []),
    ],
)
def test_doubts_of_a_graph(graph: Graph, types: list[Any], doubts: list[str]) -> None:
    assert list(facts(graph, *types).doubts) == doubts


def test_text_is_a_doubt() -> None:
    x = ops.parameter([-1], ov.Type.string, name="x")
    model = ov.Model([ops.result(ops.reshape(x, const(-1), False))], [x], "m")
    assert facts_of(model).doubts == ("text",)


def test_random_operators_are_told_and_doubted() -> None:
    found = facts(
        lambda x: ops.add(
            x, ops.random_uniform(const(1, 4), ops.constant(np.float32(0)), ops.constant(np.float32(1)), "f32")
        ),
        F32,
    )
    assert found.random == ("RandomUniform",)
    assert found.doubts == ("random numbers (RandomUniform)",)


def test_what_was_never_compared_is_told() -> None:
    assert facts(lambda x: ops.relu(x), F32).unproven == ()
    assert facts(lambda x: ops.non_zero(x), F32).unproven == ("NonZero",)


def test_bodies_of_loops_and_branches_are_looked_into() -> None:
    x = ops.parameter([-1, 4], np.int64, name="x")
    branches = []
    for operator in (ops.add, ops.multiply):
        inner = ops.parameter([-1, 4], np.int64)
        branches.append((ov.Model([ops.result(ops.convert(operator(inner, inner), "f32"))], [inner], "b"), inner))
    choice = ops.if_op(ops.constant(np.array(True)))
    choice.set_then_body(branches[0][0])
    choice.set_else_body(branches[1][0])
    choice.set_input(x.output(0), branches[0][1], branches[1][1])
    out = choice.set_output(branches[0][0].results[0], branches[1][0].results[0])

    doubts = facts_of(ov.Model([ops.result(out)], [x], "m")).doubts

    assert {"whole numbers (Add of i64)", "whole numbers (Multiply of i64)"} <= set(doubts)


def test_the_smallest_table_that_an_input_is_looked_up_in_bounds_it() -> None:
    ids, other = ops.parameter([-1, 4], I64, name="ids"), ops.parameter([-1, 4], I64, name="other")
    large, small = (ops.constant(np.ones((size, 2), np.float32)) for size in (9, 5))
    looked_up = [ops.gather(large, ids, const(0)), ops.gather(small, ops.convert(ids, "i32"), const(0))]
    results = [*map(ops.result, looked_up), ops.result(ops.convert(other, "f32"))]

    assert table_sizes(ov.Model(results, [ids, other], "m")) == {0: 5}
