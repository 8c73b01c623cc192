"""The operator's own pipeline in place of `beam_serving.pipeline.build`: `params: pipeline` names its function.

It is called with a Beam pipeline and the steps of the service (`Serving`), of which it applies those that it wants and
its own between them. It is supervised, restarted, shown and stopped as the built-in one.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from beam_serving.config.own_code import OwnCode
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.pipeline import AppliedPTransform
    from apache_beam.pvalue import PCollection, PValue

    from beam_serving.pipeline import Serving

    Build = Callable[[beam.Pipeline, Serving], None]

_NO_END = "this source has none: nothing would be written"


def load_own_pipeline(settings: Settings) -> None:
    """Import the operator's module, in a process that gets its steps from elsewhere.

    Raises:
        ConfigError: it cannot be imported.
    """
    if own := settings.own_code("params.pipeline"):
        own.load()


def build_pipeline(pipeline: "beam.Pipeline", serving: "Serving", settings: Settings) -> None:
    """Apply the steps to a pipeline: by the operator's function where there is one.

    Raises:
        ConfigError: the function cannot be imported or fails, or what it built would answer nobody.
    """
    try:
        _build(pipeline, serving, settings)
    finally:
        # Beam makes a folder for each pipeline; one that holds nothing would stay where this process is killed.
        with suppress(OSError):
            os.rmdir(pipeline.local_tempdir)


def _build(pipeline: "beam.Pipeline", serving: "Serving", settings: Settings) -> None:
    from beam_serving.pipeline import build

    own = settings.own_code("params.pipeline")
    if own is None:
        build(pipeline, serving)
        return
    builder = own.load()
    if not callable(builder):
        raise ConfigError(f"{own}: is no function; wanted is one that takes the pipeline and the steps of the service")
    try:
        cast("Build", builder)(pipeline, serving)
    except (Exception, SystemExit) as err:  # whatever the operator's code raises
        raise ConfigError(f"{own}: {type(err).__name__}: {err}") from err
    _check(pipeline, serving, own)


class _Graph(NamedTuple):
    """What was applied to a pipeline, in that order, and where in it the entries of the source are.

    Attributes:
        nodes: composites before their parts.
        read: the collections of what was read, and all that is made of them.
        written: the collections of which something is written.
    """

    nodes: "Sequence[AppliedPTransform]"
    read: "set[PValue]"
    written: "set[PValue]"

    @classmethod
    def of(cls, pipeline: "beam.Pipeline") -> "_Graph":
        """Look at a pipeline, at what is produced and consumed; labels and names count for nothing."""
        from beam_serving.io.sink import WriteToRedis
        from beam_serving.io.source import ReadFromRedisStream

        nodes = _applied(pipeline)
        leaves = [node for node in nodes if not node.is_composite()]
        read = {output for node in nodes if isinstance(node.transform, ReadFromRedisStream) for output in _out_of(node)}
        for node in leaves:
            if not read.isdisjoint((*node.inputs, *_aside_of(node))):
                read.update(_out_of(node))
        written = {given for node in nodes if isinstance(node.transform, WriteToRedis) for given in node.inputs}
        for node in reversed(leaves):
            if not written.isdisjoint(_out_of(node)):
                written.update(node.inputs)
        return cls(nodes, read, written)

    def applied_to_read(self) -> "Iterator[AppliedPTransform]":
        """Yield what takes entries, or what is made of them."""
        return (node for node in self.nodes if not self.read.isdisjoint(node.inputs))


def _applied(pipeline: "beam.Pipeline") -> "list[AppliedPTransform]":
    from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

    nodes: list[AppliedPTransform] = []

    class Visitor(PipelineVisitor):
        def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
            nodes.append(transform_node)

        def visit_transform(self, transform_node: AppliedPTransform) -> None:
            nodes.append(transform_node)

    pipeline.visit(Visitor())
    return nodes


def _out_of(node: "AppliedPTransform") -> "Iterator[PValue]":
    return iter(node.outputs.values())


def _aside_of(node: "AppliedPTransform") -> "Iterator[PCollection[object]]":
    """Yield the collections that are side inputs of a step."""
    return (side_input.pvalue for side_input in node.side_inputs)


def _check(pipeline: "beam.Pipeline", serving: "Serving", own: OwnCode) -> None:
    """Refuse a pipeline that reads or writes nothing, whose writing would wait for the source's end, or loses records.

    Raises:
        ConfigError: it is one of these.
    """
    from beam_serving.io.sink import WriteToRedis
    from beam_serving.io.source import ReadFromRedisStream

    graph = _Graph.of(pipeline)
    reads = [node for node in graph.nodes if isinstance(node.transform, ReadFromRedisStream)]
    if not reads:
        raise ConfigError(f"{own}: does not apply `serving.read`, so nothing would be read")
    if not any(isinstance(node.transform, WriteToRedis) for node in graph.nodes):
        raise ConfigError(f"{own}: does not apply `serving.write`, so no request would be answered or acknowledged")
    for reason in (*_waits(graph), *_unwritten(graph, serving)):
        raise ConfigError(f"{own}: {reason}")


def _waits(graph: _Graph) -> Iterator[str]:
    """Say which steps would wait for the end of what is read: those that end a fused stage of the local runner."""
    import apache_beam as beam
    from apache_beam.runners.common import DoFnSignature
    from apache_beam.transforms.util import ReshufflePerKey

    for node in graph.nodes:
        asides = [aside for aside in _aside_of(node) if aside in graph.read or not aside.is_bounded]
        if asides:
            made_of = "what is read" if asides[0] in graph.read else "an endless source"
            yield (
                f"a side input of {node.full_label!r} is made of {made_of}, so it waits for the end of that, and "
                f"{_NO_END}; make it of what has an end, such as `beam.Create`"
            )
    for node in graph.applied_to_read():
        step = node.transform
        is_splittable = isinstance(step, beam.ParDo) and DoFnSignature(step.fn).is_splittable_dofn()
        if is_splittable or isinstance(step, beam.Flatten | beam.GroupByKey | beam.Reshuffle | ReshufflePerKey):
            yield (
                f"{node.full_label!r} waits for the end of what it reads, and {_NO_END}; apply `serving.write` to each "
                "collection by itself"
            )


def _unwritten(graph: _Graph, serving: "Serving") -> Iterator[str]:
    """Say of which collections nothing is written, so that their requests would stay pending without a result.

    What a step of the operator's gives may end anywhere, in a log for example; what the source and our steps give may
    not. A second model beside that of the service may be there for a log alone.
    """
    from beam_serving.io.source import ReadFromRedisStream
    from beam_serving.transforms.decode import REFUSED, Decode
    from beam_serving.transforms.infer import FAILED, Infer

    outputs: dict[str | None, str]
    for node in graph.nodes:
        step, is_ours = node.transform, True
        if isinstance(step, ReadFromRedisStream):
            outputs = {None: "what is read"}
        elif isinstance(step, Decode) and not graph.read.isdisjoint(node.inputs):
            outputs, is_ours = {None: "`examples`", REFUSED: f"`{REFUSED}`"}, step is serving.decode
        elif isinstance(step, Infer) and not graph.read.isdisjoint(node.inputs):
            outputs, is_ours = {None: "`predictions`", FAILED: f"`{FAILED}`"}, step is serving.infer
        else:
            continue
        lost = [name for tag, name in outputs.items() if node.outputs.get(tag) not in graph.written]
        if lost and (is_ours or len(lost) < len(outputs)):
            yield (
                f"{lost[0]} of {node.full_label!r} reaches no `serving.write`, so these requests would get no answer "
                "and stay pending"
            )
