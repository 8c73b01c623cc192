"""What a configuration, or a caller of `handler_for`, says of a model, as the loaders take it."""

from typing import Any

from pydantic import ValidationError

from beam_serving.config.schema import Data, Model, Settings
from beam_serving.config.wanted import reason
from beam_serving.errors import ConfigError
from beam_serving.models.base import ModelOptions

_OF_MODEL = {
    **{
        name: name
        for name in ("engine", "threads", "precision", "device", "encryption", "secret_file", "allow_weak_secret")
    },
    **{name: name for name in ("batch_axis", "constants", "sample", "sandbox")},
    "outputs": "output_names",
}
_OF_DATA = {"shape": "input_shape"}
"""Keys of the sections `model` and `data`, and the fields of `ModelOptions` that they are."""


def model_options(settings: Settings) -> ModelOptions:
    """Return the options that a configuration means."""
    of_model = {name: getattr(settings.model, key) for key, name in _OF_MODEL.items()}
    return ModelOptions(**of_model, input_shape=settings.data.shape)


def checked_options(options: ModelOptions) -> ModelOptions:
    """Check options as the configuration is checked, and give them in its types.

    Raises:
        ConfigError: a value is wrong; a line for each says which, what came and what is wanted.
    """
    found: dict[str, Any] = {}
    mistakes: list[str] = []
    for section, names, needed in ((Model, _OF_MODEL, {"path": "model"}), (Data, _OF_DATA, {})):
        given = {key: getattr(options, name) for key, name in names.items()}
        try:
            checked: Any = section.model_validate({**needed, **given})
        except ValidationError as err:
            first = {str(error["loc"][0]): error for error in reversed(err.errors())}
            for key, error in reversed(first.items()):
                wanted = reason(error, section.model_fields[key])
                mistakes.append(f"{names[key]}: {wanted} (got {getattr(options, names[key])!r})")
        else:
            found.update({name: getattr(checked, key) for key, name in names.items()})
    if options.full_batch is not None and not (isinstance(options.full_batch, int) and options.full_batch > 0):
        mistakes.append(f"full_batch: wants a number of rows from 1, or None (got {options.full_batch!r})")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return ModelOptions(**found, input_names=options.input_names, full_batch=options.full_batch)
