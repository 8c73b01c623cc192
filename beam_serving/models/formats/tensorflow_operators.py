"""What the operators of a TensorFlow graph do beside computing: keep state, draw random numbers, touch files.

    found = reached(graph_def, {"Identity"})        # the nodes that run, those of functions too
    reason_to_refuse(found)                         # files, Python, the network: None or the end of a sentence
    facts_of(found)                                 # state and random operators, for `Facts`

An operator that TensorFlow calls stateful counts as one that keeps state unless it is known to be harmless, so that
what is not known here is refused rather than served with answers that depend on earlier requests.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import op_def_registry

from beam_serving.models.base import Facts


class Reached(NamedTuple):
    """A node that runs; `function` is the definition it is in, None where it stands in the graph itself."""

    node: NodeDef
    function: FunctionDef | None = None


_DATASETS = r"(TextLine|TFRecord|FixedLengthRecord|CSV|Sql|LMDB|MatchingFiles|Cache|Snapshot|DataService|Load|Save)"
_TOUCHES_MORE = re.compile(
    r"(Eager)?PyFunc(Stateless)?"
    r"|ReadFile|WriteFile|MatchingFiles|Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|DTensorRestoreV2"
    r"|LoadAndRemapMatrix|GenerateVocabRemapping|ImmutableConst|RecordInput|Skipgram|FileSystemSetConfiguration"
    r"|(WholeFile|TextLine|TFRecord|LMDB|FixedLengthRecord)Reader(V2)?"
    rf"|(Experimental)?{_DATASETS}Dataset(V\d)?|(Experimental)?DatasetToTFRecord|DatasetFromGraph"
    r"|Snapshot(DatasetReader|ChunkDataset|NestedDatasetReader)|ListSnapshotChunksDataset|RegisterDataset(V2)?"
    r"|DistributedSave|Debug(Identity(V\d)?|NanCount|NumericSummary(V2)?)|DumpTensor|CalibrationStatisticsSaver"
    r"|Write\w*Summary|CreateSummary(File|Db)Writer|SummaryWriter|ImportEvent|StatsAggregatorSetSummaryWriter"
    r"|Rpc\w+|Remote(Call|FusedGraphExecute)|_?(Host)?(Send|Recv)|Collective\w+|_?Nccl\w+|\w*TPU\w*|Xla(Host|Send|Recv)\w*"
)
"""Operators that read or write files, run Python, speak to other processes or load another graph."""
_FOREIGN = re.compile(r"XlaCustomCall(V2)?|MlirPassthroughOp|_Xla\w+|Abort|Test\w*Op|Dummy\w+")
"""Operators that run what they find by a name, or what is in a text, or end the process."""
_TEXT_FILE_TABLES = ("InitializeTableFromTextFile", "InitializeTableFromTextFileV2")
_RESTORES = re.compile(r"Restore(V2|Slice)?")

_RANDOM = re.compile(
    r"Random(Uniform(Int)?|StandardNormal|Gamma|Poisson(V2)?|Shuffle|Crop|Dataset(V2)?)|(Parameterized)?TruncatedNormal"
    r"|Multinomial|SampleDistortedBoundingBox(V2)?|\w*CandidateSampler|AllCandidateSampler|NonDeterministicInts"
    r"|ExperimentalRandomDataset|Anonymous(Random)?SeedGenerator|Shuffle(AndRepeat)?Dataset(V\d)?|Timestamp"
    r"|FractionalMaxPool|FractionalAvgPool"
)
_WRITES_VARIABLES = re.compile(
    r"Assign(Add|Sub)?VariableOp|Resource(Scatter|Apply|SparseApply|StridedSliceAssign|CountUpTo)\w*"
    r"|RngReadAndSkip|RngSkip|Stateful(Uniform|StandardNormal|TruncatedNormal|RandomBinomial)\w*"
)
_HARMLESS = re.compile(
    r"(Stateful)?PartitionedCall|_?If|_?While|Case|Assert|Print(V2)?|CheckNumerics(V2)?|EnsureShape"
    r"|_?ReadVariables?Op|ResourceGather(Nd)?|VariableShape|VarHandleOp|_VarHandlesOp|VarIsInitializedOp"
    r"|DisableCopyOnRead|DestroyResourceOp|ResourceInitializedOp|DeepCopy|Empty|GuaranteeConst|DeviceIndex|_Arg|_Retval"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?|LookupTable(Find|Size|Export)V2|TensorArray\w*|Stack\w*"
    r"|Mutex(V2|Lock)|ConsumeMutexLock|StatelessRandomGetAlg|XlaCallModule|XlaLaunch|XlaDequantize"
    r"|(Range|Tensor|TensorSlice|SparseTensorSlice|List|Reduce|GroupByReducer|Generator)Dataset|DatasetToSingleElement"
    r"|AnonymousIterator(V\d)?|MakeIterator|DeleteIterator|IteratorGetNext(Sync|AsOptional)?"
    r"|(Is)?BoostedTrees(EnsembleResourceHandleOp|EnsembleInitialized|Predict|GetEnsembleStates)"
)
"""Operators that TensorFlow calls stateful though one inference leaves nothing of them to the next."""

_VARIABLES = ("Variable", "VariableV2", "VarHandleOp", "TemporaryVariable", "AutoReloadVariable")
_TABLES = ("HashTable", "HashTableV2", "AnonymousHashTable")


def reached(graph: GraphDef, nodes: Iterable[str] = (), functions: Iterable[str] = ()) -> list[Reached]:
    """Return all nodes of a GraphDef that run for these nodes and functions, those of called functions too."""
    by_name = {node.name: node for node in graph.node}
    library = {function.signature.name: function for function in graph.library.function}
    found = [Reached(by_name[name]) for name in _behind(by_name, nodes)]
    seen: set[str] = set()
    waiting = [name for one in found for name in _called(one.node, library)] + list(functions)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        found += [Reached(node, library[name]) for node in library[name].node_def]
        waiting += [called for node in library[name].node_def for called in _called(node, library)]
        waiting += _alternatives(library[name], library)
    return found


def _behind(by_name: Mapping[str, NodeDef], names: Iterable[str]) -> Iterator[str]:
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in by_name:
            continue
        seen.add(name)
        yield name
        waiting += [node_of(one) for one in by_name[name].input]


def node_of(tensor: str) -> str:
    """Return the name of the node that a tensor or a control input belongs to."""
    return tensor.lstrip("^").partition(":")[0]


def _called(node: NodeDef, library: Mapping[str, FunctionDef]) -> Iterator[str]:
    if node.op in library:
        yield node.op
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        elif value.WhichOneof("value") == "list":
            yield from (function.name for function in value.list.func)


def _alternatives(function: FunctionDef, library: Mapping[str, FunctionDef]) -> Iterator[str]:
    """Yield the functions that TensorFlow may put in this one's place."""
    implements = function.attr["api_implements"].s if "api_implements" in function.attr else b""
    if implements:
        for name, other in library.items():
            if "api_implements" in other.attr and other.attr["api_implements"].s == implements:
                yield name


def reason_to_refuse(
    found: Iterable[Reached], assets: Collection[tuple[str, str]] = (), checkpoint: str | None = None
) -> str | None:
    """Say why nodes must not run, as the end of a sentence about the file; None where they may.

    Args:
        found: the nodes.
        assets: function ("" for the graph itself) and tensor of the file names that the model brings along.
        checkpoint: the node whose value is the name of the model's own checkpoint, which may be read.
    """
    for node, function in found:
        op = node.op
        if op in _TEXT_FILE_TABLES:
            if (function.signature.name if function else "", _origin(node.input[1], function)) not in assets:
                return _not_run(node, "reads a file that is not among the model's assets")
        elif _RESTORES.fullmatch(op) and checkpoint and not function and node_of(node.input[0]) == checkpoint:
            continue
        elif _TOUCHES_MORE.fullmatch(op):
            return _not_run(node, "reads or writes files, runs Python or speaks to other processes")
        elif _FOREIGN.fullmatch(op):
            return _not_run(node, "runs code that is no part of the graph, or ends the process")
        elif op == "PrintV2" and b"://" in node.attr["output_stream"].s:
            return _not_run(node, "writes a file")
        elif _reads_a_file(node):
            return _not_run(node, "reads a file")
    return None


def _reads_a_file(node: NodeDef) -> bool:
    if node.op in ("DecodeProtoV2", "EncodeProto"):
        return not _is_inside(node.attr["descriptor_source"].s)
    return node.op == "FixedUnigramCandidateSampler" and bool(node.attr["vocab_file"].s)


def refused_by_name(op: str) -> bool:
    """Return whether an operator, of which only the name is known, may do more than compute."""
    careful = (*_TEXT_FILE_TABLES, "PrintV2", "DecodeProtoV2", "EncodeProto", "FixedUnigramCandidateSampler")
    return bool(_TOUCHES_MORE.fullmatch(op) or _FOREIGN.fullmatch(op)) or op in careful


def _is_inside(descriptor_source: bytes) -> bool:
    return descriptor_source in (b"", b"local://") or descriptor_source.startswith(b"bytes://")


def _not_run(node: NodeDef, what: str) -> str:
    return (
        f"operator {node.op} ({node.name}) {what}, which a served model must not; "
        "export the part of the model without it, or name other outputs in model: outputs"
    )


def _origin(tensor: str, function: FunctionDef) -> str:
    """Follow a tensor of a function back over Identity to where it comes from."""
    nodes = {node.name: node for node in (function.node_def if function else ())}
    name = node_of(tensor)
    while name in nodes and nodes[name].op == "Identity":
        name = node_of(nodes[name].input[0])
    return name


def facts_of(found: Iterable[Reached]) -> tuple[Facts, tuple[str, ...]]:
    """Return the random operators and those that write variables; and, apart, those whose state cannot be set back."""
    return facts_of_names({one.node.op for one in found})


def facts_of_names(ops: Collection[str]) -> tuple[Facts, tuple[str, ...]]:
    """Return the same of operators by name; see `facts_of`."""
    random = {op for op in ops if _RANDOM.fullmatch(op)}
    writes = {op for op in ops if _WRITES_VARIABLES.fullmatch(op)}
    keeps = {op for op in ops if keeps_state(op)}
    return Facts(random=tuple(sorted(random)), state=tuple(sorted(writes))), tuple(sorted(keeps))


def keeps_state(op: str) -> bool:
    """Return whether an operator keeps something that is no variable from one inference to the next."""
    known = op_def_registry.get(op)
    if known is None or _RANDOM.fullmatch(op) or _WRITES_VARIABLES.fullmatch(op) or op in _VARIABLES:
        return False
    is_old = any(argument.is_ref for argument in known.input_arg) and op not in ("IsVariableInitialized", "RefIdentity")
    return is_old or (bool(known.is_stateful) and not _HARMLESS.fullmatch(op))


def without_value(found: Iterable[Reached], tables: bool = True) -> str | None:
    """Name a variable, or a table, whose contents are never inside a graph; None where there is none."""
    ops = (*_VARIABLES, *_TABLES) if tables else _VARIABLES
    return next((f"{one.node.op} {one.node.name!r}" for one in found if one.node.op in ops), None)
