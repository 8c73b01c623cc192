"""What a TensorFlow Lite file says of its operators, read from the file itself: the interpreter does not tell."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tensorflow.lite.python import schema_py_generated as schema

from beam_serving.models.base import Facts
from beam_serving.models.formats.tensorflow_operators import facts_of_names, refused_by_name

_IDENTIFIER = b"TFL3"
_FLEX = "Flex"
"""In front of the names of operators of TensorFlow itself, which the interpreter has, too."""
_RANDOM = ("RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL", "RandomUniform", "RandomStandardNormal")
_WRITES = ("ASSIGN_VARIABLE", "HASHTABLE_IMPORT")
_BUILTIN = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


class Described(NamedTuple):
    """What a file says.

    `facts.state` are operators whose state the interpreter sets back (`is_variable` tensors); `lasting` those whose
    state lives as long as the interpreter. `refused` is the end of a sentence, None where nothing speaks against the
    file. `signatures` gives the subgraph of each signature; `unranked` are names of tensors without a known rank.
    """

    facts: Facts
    lasting: tuple[str, ...]
    refused: str | None
    signatures: dict[str, int]
    unranked: frozenset[str]


def describe_file(content: bytes) -> Described:
    """Read the operators, signatures and variables of a file that was verified.

    Raises:
        ValueError: it is no TensorFlow Lite file.
    """
    if content[4:8] != _IDENTIFIER:
        raise ValueError("it is no TensorFlow Lite file, or damaged; convert it again")
    try:
        model = schema.Model.GetRootAs(content, 0)
        operators = [(name, one) for graph in _subgraphs(model) for name, one in _operators(model, graph)]
        names = {name for name, _ in operators}
        initial = {graph for name, one in operators if name == "CALL_ONCE" for graph in [_called_once(one)]}
        lasting = {
            name
            for index, graph in enumerate(_subgraphs(model))
            if index not in initial
            for name, _ in _operators(model, graph)
            if name in _WRITES
        }
        cells = {name for graph in _subgraphs(model) for name, one in _operators(model, graph) if _keeps(graph, one)}
        signatures = {
            (one.SignatureKey() or b"").decode(): one.SubgraphIndex()
            for one in (model.SignatureDefs(index) for index in range(model.SignatureDefsLength()))
        }
        unranked = frozenset(
            (tensor.Name() or b"").decode()
            for graph in _subgraphs(model)
            for tensor in (graph.Tensors(index) for index in range(graph.TensorsLength()))
            if not tensor.ShapeLength() and not tensor.HasRank()
        )
    except (struct.error, IndexError, TypeError, AttributeError, UnicodeDecodeError, OverflowError) as err:
        raise ValueError(f"it is damaged ({err})") from err
    flex = {name.removeprefix(_FLEX) for name in names if name.startswith(_FLEX)}
    refused = next((name for name in sorted(flex) if refused_by_name(name)), None)
    why = None
    if refused:
        why = f"operator {_FLEX}{refused} may read or write files or run Python, which a served model must not"
    facts, keeps = facts_of_names(flex)
    if not why and (kept := (*facts.state, *keeps)):
        why = f"keeps state in the operator {_FLEX}{kept[0]}, which cannot be set back between requests"
    random = (*sorted(names & set(_RANDOM)), *facts.random)
    state = tuple(sorted(cells | lasting))
    return Described(Facts(random=random, state=state), tuple(sorted(lasting)), why, signatures, unranked)


def _subgraphs(model: schema.Model) -> Iterator[schema.SubGraph]:
    return (model.Subgraphs(index) for index in range(model.SubgraphsLength()))


def _operators(model: schema.Model, graph: schema.SubGraph) -> Iterator[tuple[str, schema.Operator]]:
    for index in range(graph.OperatorsLength()):
        one = graph.Operators(index)
        code = model.OperatorCodes(one.OpcodeIndex())
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        custom = code.CustomCode() or b""
        yield custom.decode() if custom else _BUILTIN.get(builtin, str(builtin)), one


def _called_once(operator: schema.Operator) -> int:
    options, given = schema.CallOnceOptions(), operator.BuiltinOptions()
    if given is None:
        return -1
    options.Init(given.Bytes, given.Pos)
    return int(options.InitSubgraphIndex())


def _keeps(graph: schema.SubGraph, operator: schema.Operator) -> bool:
    inputs = (operator.Inputs(index) for index in range(operator.InputsLength()))
    return any(index >= 0 and graph.Tensors(index).IsVariable() for index in inputs)
