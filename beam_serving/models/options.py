"""What a configuration says of a model, as the loaders take it."""

from beam_serving.config import Settings
from beam_serving.models.base import ModelOptions


def model_options(settings: Settings) -> ModelOptions:
    """Give the options that a configuration means."""
    model = settings.model
    return ModelOptions(
        model.engine,
        model.threads,
        model.precision,
        model.device,
        settings.data.shape,
        output_names=model.outputs,
        encryption=model.encryption,
        secret_file=model.secret_file,
        batch_axis=model.batch_axis,
        constants=model.constants,
        sample=model.sample,
        sandbox=model.sandbox,
    )
