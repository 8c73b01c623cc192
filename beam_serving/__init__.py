"""Model inference behind a queue, as an Apache Beam pipeline: see README.md and `beam_serving.pipeline`.

The public names are those of `__all__`. Each is imported when it is used: a client pays neither for Beam nor for an
engine.
"""

TYPE_CHECKING = False
"""As type checkers know it. Nothing is imported here: with `python -m` the current directory still comes first."""

if TYPE_CHECKING:
    from beam_serving.client.async_input_queue import AsyncInputQueue as AsyncInputQueue
    from beam_serving.client.async_output_queue import AsyncOutputQueue as AsyncOutputQueue
    from beam_serving.client.input_queue import InputQueue as InputQueue
    from beam_serving.client.output_queue import OutputQueue as OutputQueue
    from beam_serving.client.pandas import to_pandas as to_pandas
    from beam_serving.client.redis_queue import RedisQueue as RedisQueue
    from beam_serving.config.schema import Settings as Settings
    from beam_serving.config.schema import load_settings as load_settings
    from beam_serving.errors import BeamServingError as BeamServingError
    from beam_serving.errors import ClientError as ClientError
    from beam_serving.errors import ConfigError as ConfigError
    from beam_serving.errors import ConnectError as ConnectError
    from beam_serving.errors import ImageFileError as ImageFileError
    from beam_serving.errors import InputError as InputError
    from beam_serving.errors import ModelError as ModelError
    from beam_serving.errors import ModelLoadError as ModelLoadError
    from beam_serving.errors import OutputError as OutputError
    from beam_serving.errors import QueueFullError as QueueFullError
    from beam_serving.errors import RequestError as RequestError
    from beam_serving.errors import ResultError as ResultError
    from beam_serving.errors import ResultTimeoutError as ResultTimeoutError
    from beam_serving.errors import UnreachableError as UnreachableError
    from beam_serving.io.sink import WriteToRedis as WriteToRedis
    from beam_serving.io.source import ReadFromRedisStream as ReadFromRedisStream
    from beam_serving.launch.service import serve as serve
    from beam_serving.models.handler import handler_for as handler_for
    from beam_serving.pipeline import Serving as Serving
    from beam_serving.pipeline import build as build
    from beam_serving.protocol.results import Reply as Reply
    from beam_serving.protocol.results import TopClass as TopClass
    from beam_serving.records import Examples as Examples
    from beam_serving.records import Flush as Flush
    from beam_serving.records import Predictions as Predictions
    from beam_serving.records import Ranked as Ranked
    from beam_serving.records import Result as Result
    from beam_serving.transforms.batch import Batch as Batch
    from beam_serving.transforms.decode import Decode as Decode
    from beam_serving.transforms.infer import Infer as Infer
    from beam_serving.transforms.topn import TopN as TopN

__version__ = "0.1.0"

_MODULES = {
    "client.async_input_queue": ("AsyncInputQueue",),
    "client.async_output_queue": ("AsyncOutputQueue",),
    "client.input_queue": ("InputQueue",),
    "client.output_queue": ("OutputQueue",),
    "client.pandas": ("to_pandas",),
    "client.redis_queue": ("RedisQueue",),
    "config.schema": ("Settings", "load_settings"),
    "errors": (
        *("BeamServingError", "ClientError", "ConfigError", "ConnectError", "ImageFileError", "InputError"),
        *("ModelError", "ModelLoadError", "OutputError", "QueueFullError", "RequestError", "ResultError"),
        *("ResultTimeoutError", "UnreachableError"),
    ),
    "io.sink": ("WriteToRedis",),
    "io.source": ("ReadFromRedisStream",),
    "launch.service": ("serve",),
    "models.handler": ("handler_for",),
    "pipeline": ("Serving", "build"),
    "protocol.results": ("Reply", "TopClass"),
    "records": ("Examples", "Flush", "Predictions", "Ranked", "Result"),
    "transforms.batch": ("Batch",),
    "transforms.decode": ("Decode",),
    "transforms.infer": ("Infer",),
    "transforms.topn": ("TopN",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    except ModuleNotFoundError as err:
        if (err.name or __name__).partition(".")[0] == __name__:
            raise
        needs = f"{__name__}.{name} needs {err.name}, which is not installed: pip install 'beam-serving[serve]'"
        raise ModuleNotFoundError(needs, name=err.name) from err


def __dir__() -> list[str]:
    return [*globals(), *__all__]
