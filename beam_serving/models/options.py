"""What a configuration, or a caller of `handler_for`, says of a model, as the loaders take it."""

from typing import Any

from pydantic import ValidationError

from beam_serving.config.schema import Data, Model, Settings
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
            for error in err.errors():
                name = names[str(error["loc"][0])]
                wanted = error["msg"].removeprefix("Value error, ")
                mistakes.append(f"{name}: {wanted} (got {getattr(options, name)!r})")
        else:
            found.update({name: getattr(checked, key) for key, name in names.items()})
    if options.full_batch is not None and not (isinstance(options.full_batch, int) and options.full_batch > 0):
        mistakes.append(f"full_batch: wants a number of rows from 1, or None (got {options.full_batch!r})")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return ModelOptions(**found, input_names=options.input_names, full_batch=options.full_batch)
