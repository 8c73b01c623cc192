"""What OpenVINO's CPU plugin is known to compute otherwise than the framework that a model comes from.

It computes 64-bit integers in 32 bits, float64 in float32, and integer arithmetic by rules of its own (a quotient is
rounded, a sum of bytes saturates). So it serves numbers of these kinds only where they are looked up, moved, compared
or turned into float32. Floats become integers of 16 and fewer bits, steps of a quantised model, and floats of 8 and 4
bits with other roundings. Measured with OpenVINO 2026.4.1 on the node tests of ONNX 1.23.
"""

from collections.abc import Iterator
from typing import Any

import openvino

from beam_serving.models.base import Facts

_ROUNDED = frozenset({"FakeQuantize", "FakeConvert", "NonMaxSuppression"})
"""What turns on the last bit of a float: a step of a quantised model, an overlap at its limit."""
_SHORT = frozenset({"i4", "u1", "u2", "u3", "u4", "u6", "f4e2m1", "f8e4m3", "f8e5m2", "f8e8m0", "nf4"})
_RANDOM = frozenset({"RandomUniform", "Multinomial"})
_STATE = frozenset({"ReadValue", "Assign"})
_ARITHMETIC = frozenset(
    """
    Abs Add BitwiseAnd BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor Ceiling Clamp
    Convolution ConvolutionBackpropData CumSum Divide Einsum Floor FloorMod GroupConvolution MatMul Mod
    Multiply Negative Power ReduceL1 ReduceL2 ReduceMean ReduceProd ReduceSum Round Sign SquaredDifference
    Sqrt Subtract Range ScatterElementsUpdate SegmentMax
    """.split()  # noqa: SIM905 - a list of words is read, a list of strings is not
)
"""What makes new numbers of old ones: on integers that a request sends, another framework may give others."""
_SMALL = frozenset(
    """
    ShapeOf NonZero OneHot Bucketize SearchSorted CTCGreedyDecoderSeqLen NonMaxSuppression
    MatrixNonMaxSuppression MulticlassNonMaxSuppression Unique RandomUniform Multinomial
    """.split()  # noqa: SIM905 - a list of words is read, a list of strings is not
)
"""What gives integers that are as small as the tensors that they count, or places in these."""
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


def _operators(model: openvino.Model) -> Iterator[Any]:
    for op in model.get_ordered_ops():
        yield op
        for body in _bodies(op):
            yield from _operators(body)


def _bodies(op: Any) -> list[openvino.Model]:
    """Give the graphs inside an operator: of a loop or of the branches of a condition."""
    if op.get_type_name() == "If":
        return [op.get_function(0), op.get_function(1)]
    return [op.get_function()] if op.get_type_name() in ("Loop", "TensorIterator") else []


def _doubts(model: openvino.Model) -> Iterator[str]:
    """Follow the integers that a request sends, or that are made of its floats, to what would compute with them."""
    sent: set[tuple[str, int]] = set()
    for op in model.get_ordered_ops():
        name, kind = op.get_name(), op.get_type_name()
        for body in _bodies(op):
            yield from _doubts(body)
        types = [
            port.get_element_type() for port in (*op.outputs(), *(port.get_source_output() for port in op.inputs()))
        ]
        if openvino.Type.string in types:
            yield "text"
        if openvino.Type.f64 in types and kind != "Constant":
            yield "float64"
        is_of_weights = kind == "Convert" and _source(op.inputs()[0]).get_node().get_type_name() == "Constant"
        short = [one.get_type_name() for one in types if one.get_type_name() in _SHORT]
        if short and kind != "Constant" and not is_of_weights:
            yield f"numbers of few bits ({short[0]})"
        if kind == "Tile" and _source(op.inputs()[1]).get_node().get_type_name() == "Parameter":
            yield "Tile of repeats that a request sends"
        if kind in _ROUNDED:
            yield f"what turns on the last bit ({kind})"
        if kind == "Constant":
            yield from _large_constants(op)
            continue
        sources = [(source.get_node().get_name(), source.get_index()) for source in map(_source, op.inputs())]
        has_sent = [source in sent for source in sources]
        if kind in _ARITHMETIC and any(has_sent):
            yield f"whole numbers ({kind} of {_kinds_of(op)})"
        if kind == "Result" and has_sent[0] and _source(op.inputs()[0]).get_element_type() in _WIDE:
            yield f"whole numbers (output of {_kinds_of(op)})"
        if kind == "Convert" and (_narrows(op) if has_sent[0] else _rounds(op)):
            yield f"whole numbers (Convert to {op.get_output_element_type(0).get_type_name()})"
        if kind == "Parameter":
            made = True
        elif kind == "Convert":
            made = has_sent[0] or _source(op.inputs()[0]).get_element_type().is_real()
        else:
            made = kind not in _SMALL and any(has_sent)
        for index, port in enumerate(op.outputs()):
            is_place = kind == "TopK" and index == 1
            if made and not is_place and _is_whole(port.get_element_type()):
                sent.add((name, index))


def _source(port: Any) -> Any:
    return port.get_source_output()


def _is_whole(kind: openvino.Type) -> bool:
    return bool(kind.is_integral_number()) and kind != openvino.Type.boolean


def _kinds_of(op: Any) -> str:
    names = {_source(port).get_element_type().get_type_name() for port in op.inputs()}
    return " and ".join(sorted(names))


def _narrows(op: Any) -> bool:
    """Tell whether integers become integers of fewer bits, below 32."""
    old, new = _source(op.inputs()[0]).get_element_type(), op.get_output_element_type(0)
    return _is_whole(old) and _is_whole(new) and new.bitwidth < min(old.bitwidth, 32)


def _rounds(op: Any) -> bool:
    """Tell whether floats become integers of 16 or fewer bits."""
    old, new = _source(op.inputs()[0]).get_element_type(), op.get_output_element_type(0)
    return bool(old.is_real()) and _is_whole(new) and new.bitwidth <= 16


def _large_constants(op: Any) -> Iterator[str]:
    if op.get_output_element_type(0) not in _WIDE:
        return
    values = op.get_data()
    if not values.size or (values.max() < _LIMIT and values.min() >= -_LIMIT):
        return
    for port in op.output(0).get_target_inputs():
        kind = port.get_node().get_type_name()
        if kind not in _TAKES_LARGE:
            yield f"whole numbers beyond 32 bits ({kind})"
