"""From settings to a running pipeline in this process."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_serving.config.own_code import is_own_code
from beam_serving.config.schema import Settings
from beam_serving.errors import ConfigError
from beam_serving.io.readers import FN_API_RUNNER, Readers
from beam_serving.launch.own_pipeline import build_pipeline
from beam_serving.models.base import STRING, TensorSpec
from beam_serving.models.info import ModelInfo
from beam_serving.models.labels import check_labels
from beam_serving.models.opening import model_info
from beam_serving.models.options import model_options
from beam_serving.telemetry.busy import BusyFile

if TYPE_CHECKING:
    from beam_serving.pipeline import Serving


def check_served(settings: Settings, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Check what is configured against the model, so that what would fail every request fails the start.

    Raises:
        ConfigError: labels, image rules or post-processing do not fit the model.
    """
    from beam_serving.pipeline import image_rules
    from beam_serving.transforms.image import check_inputs

    check_labels(settings.model.labels, outputs)
    if reason := check_inputs(inputs, image_rules(settings)):
        raise ConfigError(f"{settings.model.path}: {reason}")
    params = settings.params
    asks = params.post_processing or (f"top_n: {params.top_n}" if params.top_n not in ("auto", 0) else "")
    texts = [spec.name for spec in outputs if spec.dtype == STRING]
    # Best classes of what has no scores.
    if asks and asks != "none" and not is_own_code(asks) and len(texts) == len(outputs):
        raise ConfigError(f"params: {asks}: output {texts[0]!r} of {settings.model.path} is text; set top_n: 0 or auto")


def planned_steps(settings: Settings, readers: Readers) -> "Serving":
    """Make the steps for workers in other processes, checked against their model, which is not loaded here.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: see `check_served`.
    """
    from beam_serving.pipeline import steps

    settings = with_batch_size(settings)
    return steps(settings, readers)


def with_batch_size(settings: Settings) -> Settings:
    """Check the settings against their model, and put a measured batch size in the place of `auto`.

    Raises:
        ModelLoadError, ConfigError: see `planned_steps`.
    """
    wanted = settings.params.batch_size
    info = served_model(settings, None if wanted == "auto" else wanted)
    params = settings.params.model_copy(update={"batch_size": info.batch_size})
    return settings.model_copy(update={"params": params})


def served_model(settings: Settings, batch_size: int | None) -> ModelInfo:
    """Load the model as a start does, in a process of its own, and check the settings against it.

    Args:
        settings: of the service.
        batch_size: the most records in one inference; None measures which serves most.

    Raises:
        ModelLoadError, ConfigError: see `planned_steps`.
    """
    info = model_info(settings.model.path, model_options(settings), batch_size)
    check_served(settings, info.inputs, info.outputs)
    return info


def run_pipeline(
    settings: Settings, consumers: Sequence[str], arguments: Sequence[str], drain: bool, busy: BusyFile | None = None
) -> str:
    """Run the pipeline in this process until it ends, and return its last state ("DONE").

    `busy` is where this process and the other workers of its machine tell each other whether they hold requests.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: see `check_served`.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_serving.pipeline import steps

    serving = steps(settings, Readers(consumers, drain, busy=busy))
    # It serves in this process, so it is loaded before the pipeline runs, and errors arrive as they are.
    model = serving.model.acquire().model
    check_served(settings, model.inputs, model.outputs)
    # Beam's "DirectRunner" would first try to download another runner; this is the local one by name.
    options = PipelineOptions([*arguments, f"--runner={FN_API_RUNNER}"])
    pipeline = beam.Pipeline(options=options)
    build_pipeline(pipeline, serving, settings)
    result = pipeline.run()
    return str(result.wait_until_finish() or result.state)
