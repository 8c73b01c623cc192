"""The operator's own pipeline in place of `beam_serving.pipeline.build`: `params: pipeline` names its function.

It is called with a Beam pipeline and the steps of the service (`Serving`), of which it applies those that it wants and
its own between them. It is supervised, restarted, shown and stopped as the built-in one.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from beam_serving.config.own_code import OwnCode
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_serving.pipeline import Serving

    Build = Callable[[beam.Pipeline, Serving], None]

_ENDS_STAGES = ("Flatten", "GroupByKey", "_GroupByKeyOnly", "Reshuffle", "ReshufflePerKey")


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
    _check(pipeline, own)


def _check(pipeline: "beam.Pipeline", own: OwnCode) -> None:
    """Refuse a pipeline that reads nothing, that writes nothing, or whose writing would wait for the source's end.

    Raises:
        ConfigError: it is one of these.
    """
    from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

    from beam_serving.io.sink import WriteToRedis
    from beam_serving.io.source import ReadFromRedisStream

    applied: list[tuple[str, str]] = []

    class Visitor(PipelineVisitor):
        def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
            self.visit_transform(transform_node)

        def visit_transform(self, transform_node: AppliedPTransform) -> None:
            applied.append((type(transform_node.transform).__name__, transform_node.full_label))

    pipeline.visit(Visitor())
    kinds = {kind for kind, _ in applied}
    if ReadFromRedisStream.__name__ not in kinds:
        raise ConfigError(f"{own}: does not apply `serving.read`, so nothing would be read")
    if WriteToRedis.__name__ not in kinds:
        raise ConfigError(f"{own}: does not apply `serving.write`, so no request would be answered or acknowledged")
    reads = [label for kind, label in applied if kind == ReadFromRedisStream.__name__]
    for kind, label in applied:
        if kind in _ENDS_STAGES and not label.startswith(tuple(f"{read}/" for read in reads)):
            raise ConfigError(
                f"{own}: {label!r} waits for the end of what it reads, and this source has none: nothing would be "
                "written; apply `serving.write` to each collection by itself"
            )
