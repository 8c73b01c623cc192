"""What OpenVINO's CPU plugin is known to compute otherwise than the framework that a model comes from.

It computes 64-bit integers in 32 bits, compares integers as float32, float64 and float16 as float32, and integer
arithmetic by rules of its own (a quotient is rounded, a sum of bytes saturates). So it serves such numbers only where
they are looked up, moved, compared with small constants or turned into float32. Floats become integers, steps of a
quantised model, and floats of 8 and 4 bits with other roundings and limits. Measured with OpenVINO 2026.4.1 on the node
tests of ONNX 1.23.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import openvino

from beam_serving.models.base import Facts

_ROUNDED = frozenset({"FakeQuantize", "FakeConvert", "NonMaxSuppression"})
"""What turns on the last bit of a float: a step of a quantised model, an overlap at its limit."""
_SHORT = frozenset({"i4", "u1", "u2", "u3", "u4", "u6", "f4e2m1", "f8e4m3", "f8e5m2", "f8e8m0", "nf4"})
_RANDOM = frozenset({"RandomUniform", "Multinomial"})
_STATE = frozenset({"ReadValue", "Assign"})
_ARITHMETIC = frozenset(
    """
    Abs Add BitwiseAnd BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Bucketize Ceiling
    Clamp Convolution ConvolutionBackpropData CumSum Divide Einsum Floor FloorMod GroupConvolution MatMul
    Maximum Minimum Mod Multiply Negative Power ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum Round Sign SquaredDifference Sqrt Subtract Range ScatterElementsUpdate SearchSorted SegmentMax
    TopK Unique
    """.split()  # noqa: SIM905 - a list of words is read, a list of strings is not
)
"""What makes new numbers of old ones: on integers that a request sends, another framework may give others."""
_UNCHECKED = frozenset({"GatherND", "GatherElements", "ScatterNDUpdate", "ScatterUpdate", "ScatterElementsUpdate"})
"""What reads or writes memory beyond its tensor where a place in the second input is none (GatherND, 2026.4.1)."""
_COMPARISONS = frozenset({"Equal", "NotEqual", "Less", "LessEqual", "Greater", "GreaterEqual"})
_EXACT_IN_FLOAT32 = 2**24
_COUNTS = frozenset(
    """
    ShapeOf NonZero OneHot CTCGreedyDecoderSeqLen NonMaxSuppression MatrixNonMaxSuppression
    MulticlassNonMaxSuppression RandomUniform Multinomial
    """.split()  # noqa: SIM905 - a list of words is read, a list of strings is not
)
"""What gives integers that are as small as the tensors that they count, or places in these."""
_MOVES = frozenset({"Convert", "Reshape", "Squeeze", "Unsqueeze", "Transpose"})
"""What leaves the numbers of its first input as they are, all of them."""
_TAKES_LARGE = frozenset({"Slice", "StridedSlice", "SliceScatter", "RandomUniform", "Reshape", "Convert", "TopK"})
"""Where an integer beyond 32 bits means "to the end", or becomes a float."""
_LIMIT = 2**31
_WIDE = (openvino.Type.i64, openvino.Type.u64, openvino.Type.u32)

PROVEN = frozenset(
    """
    Abs Acos Acosh Add Asin Asinh Atan Atanh AvgPool BatchNormInference Broadcast Ceiling Clamp Concat
    Constant Convert ConvertLike Convolution ConvolutionBackpropData Cos Cosh CumSum DepthToSpace Divide Elu
    Equal Erf Exp Floor Gather GatherElements GatherND Greater GreaterEqual GroupConvolution
    GroupConvolutionBackpropData HardSigmoid HSwish Less LessEqual Log LogSoftmax LogicalAnd LogicalNot
    LogicalOr LogicalXor MatMul MaxPool Maximum Minimum Multiply MVN Negative NormalizeL2 NotEqual OneHot
    PRelu Pad Parameter Power Range ReadValue Assign Relu ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum Reshape Result Select Selu ShapeOf Sigmoid Sign Sin Sinh Slice Softmax SoftPlus
    SoftSign SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh Tile
    Transpose Unsqueeze VariadicSplit
    """.split()  # noqa: SIM905 - a list of words is read, a list of strings is not
)
"""Operators that gave on float32 what the node tests expect, in all of them: equal but for rounding."""


def facts_of(model: openvino.Model) -> Facts:
    """Tell what there is to know of a model beside its tensors; see `Facts`."""
    operators = {op.get_type_name() for op in _operators(model)}
    random = tuple(sorted(operators & _RANDOM))
    doubts = [f"random numbers ({name})" for name in random]
    doubts += dict.fromkeys(_doubts(model))
    unproven = tuple(sorted(operators - PROVEN))
    return Facts(random, tuple(sorted(operators & _STATE)), tuple(doubts), unproven)


def table_sizes(model: openvino.Model) -> dict[int, int]:
    """Return, by the place of an input, the size of the smallest table that its integers are looked up in.

    OpenVINO answers for a place beyond the table, where other frameworks refuse the request.
    """
    places = {port.get_node().get_name(): place for place, port in enumerate(model.inputs)}
    came_from: dict[str, int] = {}
    sizes: dict[int, int] = {}
    for op in model.get_ordered_ops():
        name, kind = op.get_name(), op.get_type_name()
        sources = [_source(port).get_node() for port in op.inputs()]
        if name in places:
            came_from[name] = places[name]
        elif kind in _MOVES and sources[0].get_name() in came_from:
            came_from[name] = came_from[sources[0].get_name()]
        elif kind == "Gather" and sources[1].get_name() in came_from and (size := _table_size(op, sources)):
            place = came_from[sources[1].get_name()]
            sizes[place] = min(size, sizes.get(place, size))
    return sizes


def _table_size(op: openvino.Node, sources: list[openvino.Node]) -> int | None:
    table = sources[0]
    if table.get_type_name() == "Convert":
        table = _source(table.inputs()[0]).get_node()
    if table.get_type_name() != "Constant" or sources[2].get_type_name() != "Constant":
        return None
    size = op.inputs()[0].get_partial_shape()[int(sources[2].get_data().reshape(-1)[0])]
    return int(size.get_length()) if size.is_static else None


def _operators(model: openvino.Model) -> Iterator[openvino.Node]:
    for op in model.get_ordered_ops():
        yield op
        for body in _bodies(op):
            yield from _operators(body)


def _bodies(op: openvino.Node) -> list[openvino.Model]:
    """Return the graphs inside an operator: of a loop or of the branches of a condition."""
    if op.get_type_name() == "If":
        return [op.get_function(0), op.get_function(1)]
    return [op.get_function()] if op.get_type_name() in ("Loop", "TensorIterator") else []


class _Step(NamedTuple):
    """One operator with the types of what it takes and gives, and what of it comes from a request."""

    op: openvino.Node
    kind: str
    takes: list[openvino.Type]
    gives: list[openvino.Type]
    depends: list[bool]
    """Of each input, whether its values come from a request, and not only its sizes."""

    @property
    def sent(self) -> list[bool]:
        """Of each input, whether it has whole numbers that come from a request."""
        return [depends and _is_whole(kind) for depends, kind in zip(self.depends, self.takes, strict=True)]


def _doubts(model: openvino.Model) -> Iterator[str]:
    """Follow the values that a request sends to what would compute with them."""
    known: set[tuple[str, int]] = set()
    for op in model.get_ordered_ops():
        for body in _bodies(op):
            yield from _doubts(body)
        sources = [_source(port) for port in op.inputs()]
        step = _Step(
            op,
            op.get_type_name(),
            [source.get_element_type() for source in sources],
            [port.get_element_type() for port in op.outputs()],
            [(source.get_node().get_name(), source.get_index()) in known for source in sources],
        )
        yield from _doubts_of_types(step)
        yield from _doubts_of_integers(step)
        if step.kind == "Parameter" or (any(step.depends) and step.kind not in _COUNTS):
            places = (1,) if step.kind == "TopK" else ()
            known |= {(op.get_name(), index) for index in range(len(step.gives)) if index not in places}


def _doubts_of_types(step: _Step) -> Iterator[str]:
    if step.kind == "Constant":
        return
    types = [*step.takes, *step.gives]
    if openvino.Type.string in types:
        yield "text"
    if openvino.Type.f64 in types:
        yield "float64"
    if step.kind == "Parameter" or any(step.depends):
        if openvino.Type.f16 in step.gives:
            yield "float16"
        if short := [kind.get_type_name() for kind in types if kind.get_type_name() in _SHORT]:
            yield f"numbers of few bits ({short[0]})"
    if step.kind in _ROUNDED:
        yield f"what turns on the last bit ({step.kind})"
    if step.kind == "Tile" and step.depends[1]:
        yield "Tile of repeats that a request sends"


def _doubts_of_integers(step: _Step) -> Iterator[str]:
    kinds = " and ".join(sorted({kind.get_type_name() for kind in step.takes}))
    if step.kind == "Constant":
        yield from _large_constants(step.op)
    if any(step.sent) and (step.kind in _ARITHMETIC or (step.kind in _COMPARISONS and not _compares_small(step))):
        yield f"whole numbers ({step.kind} of {kinds})"
    if step.kind in _UNCHECKED and step.sent[1]:
        yield f"places that a request sends ({step.kind})"
    if step.kind == "Select" and any(
        sent and kind.bitwidth >= 32 for sent, kind in zip(step.sent, step.takes, strict=True)
    ):
        yield f"whole numbers (Select of {kinds})"
    if step.kind == "Result" and step.sent[0] and step.takes[0] in _WIDE:
        yield f"whole numbers (output of {kinds})"
    if (
        step.kind == "Convert"
        and step.depends[0]
        and (step.takes[0].is_real() or _narrows(step))
        and _is_whole(step.gives[0])
    ):
        yield f"whole numbers (Convert of {kinds} to {step.gives[0].get_type_name()})"


def _compares_small(step: _Step) -> bool:
    """Return whether whole numbers are compared with a constant that float32 keeps apart from its neighbours."""
    others = [_source(port).get_node() for port, sent in zip(step.op.inputs(), step.sent, strict=True) if not sent]
    return (
        len(others) == 1
        and others[0].get_type_name() == "Constant"
        and (bool(np.all(np.abs(others[0].get_data().astype(np.float64)) < _EXACT_IN_FLOAT32)))
    )


def _source(port: openvino.Input) -> openvino.Node:
    return port.get_source_output()


def _is_whole(kind: openvino.Type) -> bool:
    return bool(kind.is_integral_number()) and kind != openvino.Type.boolean


def _narrows(step: _Step) -> bool:
    """Return whether integers become integers of fewer bits, below 32."""
    old, new = step.takes[0], step.gives[0]
    return _is_whole(old) and _is_whole(new) and new.bitwidth < min(old.bitwidth, 32)


def _large_constants(op: openvino.Node) -> Iterator[str]:
    if op.get_output_element_type(0) not in _WIDE:
        return
    values = op.get_data()
    if not values.size or (values.max() < _LIMIT and values.min() >= -_LIMIT):
        return
    for port in op.output(0).get_target_inputs():
        kind = port.get_node().get_type_name()
        if kind not in _TAKES_LARGE:
            yield f"whole numbers beyond 32 bits ({kind})"
