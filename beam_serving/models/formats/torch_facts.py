"""What the operators of a module say of it: which give something else each time, and which keep something for later."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import torch

_TRAINING = ("train", "training", "use_input_stats")
_SHARE = ("p", "dropout", "dropout_p")
_STATISTICS = ("aten::batch_norm", "aten::instance_norm", "aten::native_batch_norm", "aten::_batch_norm_impl_index")
"""They write their running statistics while training, which their schemas do not say."""


def random_operators(graph: torch.Graph) -> tuple[str, ...]:
    """Name the operators of a TorchScript graph that give something else each time."""
    return _names(node.kind() for node in nodes_of(graph) if _is_random(node))


def state_operators(graph: torch.Graph) -> tuple[str, ...]:
    """Name what a TorchScript graph keeps for the next inference, `prim::SetAttr count` or `aten::batch_norm`.

    In a frozen graph only those attributes are left that are written somewhere, as lists may be and buffers in place.
    """
    aliases = graph.alias_db()
    found = []
    for node in nodes_of(graph):
        if node.kind() == "prim::SetAttr":
            found.append(f"{node.kind()} {node.s('name')}")
        elif node.kind() == "prim::GetAttr" and node.output().type().kind() != "ClassType":
            if aliases.has_writers(node.output()):
                found.append(f"writing {node.s('name')}")
        elif node.kind() == "prim::CallMethod" or (node.kind() in _STATISTICS and _is_training(node)):
            found.append(node.kind())
    return _names(found)


def trains_statistics(graph: torch.Graph) -> bool:
    """Return whether a TorchScript graph writes statistics, which freezing makes constants of the code."""
    return any(node.kind() in _STATISTICS and _is_training(node) for node in nodes_of(graph))


def program_random_operators(module: torch.nn.Module) -> tuple[str, ...]:
    """Name the operators of a program of torch.export that give something else each time."""
    return _names(
        _kind(node.target)
        for node in _calls(module)
        if torch.Tag.nondeterministic_seeded in node.target.tags and not _is_off(_arguments(node))
    )


def program_state(module: torch.nn.Module) -> tuple[tuple[str, ...], set[str]]:
    """Name the operators of a program of torch.export that write what the program keeps, and the tensors they write.

    An operator of a branch writes what the branch is given, which is told as `""`: any tensor of the program.
    """
    operators, tensors = [], set()
    for node in _calls(module):
        arguments = _arguments(node)
        written = [one.name for one in node.target._schema.arguments if one.alias_info and one.alias_info.is_write]
        if _kind(node.target) in _STATISTICS and not _is_constant(arguments, _TRAINING, (False,)):
            written += ["running_mean", "running_var"]
        kept = {target for name in written for target in _kept(arguments.get(name))}
        if kept:
            operators.append(_kind(node.target))
            tensors |= kept
    return _names(operators), tensors


def _calls(module: torch.nn.Module) -> Iterator[torch.fx.Node]:
    graphs = [one.graph for one in module.modules() if isinstance(one, torch.fx.GraphModule)]
    for graph in graphs:
        for node in graph.nodes:
            if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
                yield node


def _kept(value: object) -> set[str]:
    """Return the tensors of the program that a value is, or may be a view of."""
    if isinstance(value, list | tuple):
        return {target for one in value for target in _kept(one)}
    while isinstance(value, torch.fx.Node):
        if value.op == "get_attr":
            return {str(value.target)}
        if value.op == "placeholder":
            # The main graph of a module that was made for calling has inputs of requests alone.
            is_main = "_in_spec" in vars(value.graph.owning_module)
            return set() if is_main else {""}
        value = next(iter(value.all_input_nodes), None) if _is_view(value) else None
    return set()


def _is_view(node: torch.fx.Node) -> bool:
    # What is no operator of torch takes a tensor out of a list.
    if not isinstance(node.target, torch._ops.OpOverload):
        return True
    return (
        any(one.alias_info for one in node.target._schema.returns)
        or torch.Tag.maybe_aliasing_or_mutating in node.target.tags
    )


def _arguments(node: torch.fx.Node) -> dict[str, object]:
    schema = node.target._schema.arguments
    given = {one.name: one.default_value for one in schema}
    return {**given, **dict(zip([one.name for one in schema], node.args, strict=False)), **node.kwargs}


def _is_off(arguments: Mapping[str, object]) -> bool:
    return _is_constant(arguments, _TRAINING, (False,)) or _is_constant(arguments, _SHARE, (0.0,))


def _is_constant(arguments: Mapping[str, object], names: Iterable[str], wanted: tuple[object, ...]) -> bool:
    return any(name in arguments and arguments[name] in wanted for name in names)


def _kind(target: torch._ops.OpOverload) -> str:
    name: str = target._schema.name
    return name


def nodes_of(block: torch.Graph | torch.Block) -> Iterator[torch.Node]:
    """Yield the nodes of a TorchScript graph, those of the blocks and graphs inside it too."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from nodes_of(inner)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from nodes_of(node.g(name))


def _is_random(node: torch.Node) -> bool:
    return _may_be_random(node.kind()) and not _is_off(_constants(node))


def _is_training(node: torch.Node) -> bool:
    return not _is_constant(_constants(node), _TRAINING, (False,))


def _constants(node: torch.Node) -> dict[str, int | float]:
    """Return the arguments of a node that are numbers or truth values in the file, by name."""
    try:
        schema = torch._C.parse_schema(node.schema())
    except RuntimeError:
        return {}
    values = [value.toIValue() if value.node().kind() == "prim::Constant" else None for value in node.inputs()]
    names = [one.name for one in schema.arguments]
    pairs = zip(names, values, strict=False)
    return {name: value for name, value in pairs if isinstance(value, int | float)}


@cache
def _may_be_random(kind: str) -> bool:
    space, _, name = kind.partition("::")
    packet = getattr(getattr(torch.ops, space), name, None) if space == "aten" else None
    if packet is None:
        return False
    tags = [getattr(packet, overload).tags for overload in packet.overloads()]
    return any(torch.Tag.nondeterministic_seeded in one for one in tags)


def _names(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(found))
