"""config.yaml: every key with its type, default, unit and check; a mistake is answered with file, line and remedy.

Secrets never stand in the file: the Redis password comes from the environment variable
`BEAM_SERVING_REDIS_PASSWORD` or from the file that `redis: password_file` names, those for decryption alike
(`beam_serving.encryption.secrets`).
"""

from __future__ import annotations

import difflib
import logging
import os.path
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from beam_serving.config.legacy.translate import FLAT_0_10, Translation, renamed, translate
from beam_serving.config.output import is_url
from beam_serving.config.own_code import OwnCode, is_own_code, own_code
from beam_serving.config.post_processing import checked as checked_rule
from beam_serving.config.values import (
    BatchAxis,
    BatchSize,
    Constants,
    Floats,
    Names,
    Sample,
    Seconds,
    Shapes,
    Threads,
    TopN,
    WorkerCount,
)
from beam_serving.config.yaml_file import YamlFile, read_yaml
from beam_serving.errors import ConfigError
from beam_serving.transport.address import Address
from beam_serving.transport.keys import shared_keys

_log = logging.getLogger(__name__)

CODE = ("data.preprocess", "params.post_processing", "params.pipeline")
"""Keys that may name code of the operator's."""
PATHS = (
    *("model.path", "model.labels", "model.sample", "model.secret_file", "data.secret_file", "data.output"),
    *("redis.password_file", "redis.ca_file", "flink.job_server_jar", "spark.job_server_jar"),
    "flink.worker_pool_secret_file",
    *CODE,
)
"""Keys whose values are paths, or may be; relative ones are taken from the folder of the file."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads yes, no, on and off as booleans, and pydantic would take these for 1 and 0.
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is False and "off" in get_args(annotation):
            return "off"
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("cannot be true or false")
        return value


class Model(_Section):
    """Which model is served and by what."""

    path: str
    engine: str = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Threads = "auto"
    precision: Literal["f32", "bf16", "int8"] = "f32"
    labels: str | None = None
    outputs: Names = ()
    batch_axis: BatchAxis = "auto"
    constants: Constants = Field(default_factory=dict)
    sample: Sample = None
    sandbox: Literal["auto", "required", "off"] = "auto"
    encryption: Literal["none", "gcm", "cbc"] = "none"
    secret_file: str | None = None
    allow_weak_secret: bool = False

    @property
    def openmp_threads(self) -> int:
        """The threads of libraries that have no setting of their own: one where nothing else is said."""
        return 1 if self.threads == "auto" else self.threads or 1


class Data(_Section):
    """Where requests come from and how images become tensors."""

    src: str = "localhost:6379"
    shape: Shapes = None
    streams: Names = ("image_stream", "serving_stream")
    group: str = "serving"
    share: bool = False
    color: Literal["bgr", "rgb"] = "bgr"
    layout: Literal["auto", "chw", "hwc"] = "auto"
    resize: Literal["stretch", "fit", "crop"] = "stretch"
    resize_to: int | None = Field(default=None, gt=0)
    resize_filter: Literal["auto", "linear", "area", "antialias"] = "auto"
    mean: Floats = (0.0,)
    scale: Floats = (1.0,)
    strict_images: bool = False
    preprocess: Annotated[str | None, BeforeValidator(own_code)] = None
    max_pixels: int = Field(default=50_000_000, gt=0)
    max_request_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    max_decode_mb: int = Field(default=384, gt=0, le=1 << 20)
    max_dead_letters: int = Field(default=10_000, gt=0)
    max_dead_letters_mb: int = Field(default=256, gt=0)
    result_ttl_s: float = Field(default=86_400, ge=0)
    max_result_bytes: Annotated[int | None, Field(gt=0)] = None
    output: str | None = None
    output_format: Literal["parquet", "jsonl"] = "parquet"
    encryption: Literal["none", "images", "all"] = "none"
    secret_file: str | None = None
    allow_weak_secret: bool = False

    @model_validator(mode="before")
    @classmethod
    def _by_its_first_name(cls, values: object) -> object:
        if not isinstance(values, dict) or "max_payload_bytes" not in values:
            return values
        if "max_request_bytes" in values:
            raise ValueError("max_payload_bytes is the first name of max_request_bytes; leave one of them out")
        return {("max_request_bytes" if key == "max_payload_bytes" else key): one for key, one in values.items()}

    @field_validator("streams")
    @classmethod
    def _at_least_one_name(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value) or len(set(value)) != len(value):
            raise ValueError("wants at least one stream name, each once")
        for stream in value:
            if reason := shared_keys(stream, value):
                raise ValueError(reason)
        return value

    @field_validator("resize_to")
    @classmethod
    def _only_where_it_counts(cls, value: int | None, others: ValidationInfo) -> int | None:
        if value is not None and others.data.get("resize") != "crop":
            raise ValueError("goes with resize: crop")
        return value

    @field_validator("src")
    @classmethod
    def _address_without_secret(cls, value: str) -> str:
        if Address.parse(value).password:
            raise ValueError(
                "a password must not stand in the file; set BEAM_SERVING_REDIS_PASSWORD or redis: password_file"
            )
        return value


class Params(_Section):
    """How work is batched, spread and guarded."""

    batch_size: BatchSize = 4
    top_n: TopN = "auto"
    post_processing: Annotated[str | None, BeforeValidator(checked_rule)] = None
    pipeline: Annotated[str | None, BeforeValidator(own_code)] = None
    workers: WorkerCount = "auto"
    poll_s: Annotated[float, Field(gt=0, le=10)] = 1.0
    checkpoint_interval_s: Seconds = 600.0
    reclaim_idle_s: Seconds = 30.0
    max_deliveries: int = Field(default=3, ge=1)
    inference_timeout_s: Seconds = 60.0
    grace_s: Seconds = 30.0
    statistics_s: Seconds = 10.0


class Redis(_Section):
    """How to reach Redis: everything but its address."""

    username: str | None = None
    password_file: str | None = None
    ca_file: str | None = None
    timeout_s: Seconds = 5.0
    wait_s: float = Field(default=10.0, ge=0)


class Spark(_Section):
    """Where Spark is, and what a drain gets of it: the keys of Cluster Serving, then ours."""

    master: str = "local[*]"
    driver_memory: str = Field(default="4g", pattern=r"^\d+[kmgt]$")
    executor_memory: str = Field(default="1g", pattern=r"^\d+[kmgt]$")
    num_executors: int = Field(default=1, ge=1)
    executor_cores: int = Field(default=1, ge=1)
    total_executor_cores: Annotated[int | None, Field(ge=1)] = None
    worker_command: str | None = None
    job_server_jar: str | None = None
    start_s: Seconds = 60.0


class Flink(_Section):
    """Where Flink is, an embedded one where `rest` is unset, and how the pipeline runs on it."""

    rest: str | None = None
    parallelism: Annotated[int | None, Field(ge=1, le=256)] = None
    worker_pool: str | None = None
    worker_pool_secret_file: str | None = None
    worker_command: str | None = None
    uber_jar: bool = False
    job_server_jar: str | None = None
    java_options: str = Field(default="-Xmx1g", pattern=r"^-\S+$")
    start_s: Seconds = 60.0


class Settings(_Section):
    """The whole of config.yaml, checked; the file config.yaml of the repository explains each key.

    Attributes:
        name: the service's, under which its state is in Redis: 1 to 64 letters, digits and `_.{}-`.
        model: which model is served and by what.
        data: where requests come from and how images become tensors.
        params: how work is batched, spread and guarded.
        redis: how to reach Redis, beside its address, which is `data.src`.
        flink: of the runner of that name.
        spark: of the runner of that name.
    """

    name: Annotated[str, Field(pattern=r"^[\w.{}-]{1,64}$")] = "beam-serving"
    model: Model
    data: Data = Data()
    params: Params = Params()
    redis: Redis = Redis()
    flink: Flink = Flink()
    spark: Spark = Spark()

    def own_code(self, key: str) -> OwnCode | None:
        """Return the code of the operator's that a key names, None where it names none.

        Args:
            key: one of `CODE`, as `params.pipeline`.
        """
        section, name = key.split(".")
        text = getattr(getattr(self, section), name)
        return OwnCode.of(f"{section}: {name}", text) if is_own_code(text) else None

    def about(self, workers: int) -> dict[str, object]:
        """Return what a service says of itself while it is ready.

        Args:
            workers: how many worker processes it has.
        """
        return {"model": self.model.path, "streams": self.data.streams, "workers": workers}


def load_settings(path: Path) -> Settings:
    """Read and check a configuration file, also one of Cluster Serving; what is not used of it is logged as warnings.

    Args:
        path: the file, YAML in UTF-8; paths inside it are taken from the folder that it lies in.

    Returns:
        The settings, with absolute paths and with defaults for the keys that the file does not have.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or a key or value is wrong; one line per mistake, each with
            the file and the line.
    """
    translation = translated(read_yaml(path))
    settings = checked(translation)
    for entry in translation.entries:
        if entry.warns:
            _log.warning("%s: %s: %s", translation.file.where(entry.line), entry.key, entry.remark)
    return settings


def all_keys() -> tuple[str, ...]:
    """Return the keys of the file in its order, as `params.workers`."""
    names = [name for name in Settings.model_fields if name != "name"]
    return ("name", *(f"{name}.{key}" for name in names for key in _section_of(name).model_fields))


def translated(file: YamlFile) -> Translation:
    """Bring a file of any version into the form of `Settings`, unchecked."""
    return translate(file, {*Settings.model_fields, *all_keys()})


def checked(translation: Translation) -> Settings:
    """Check values and make paths absolute.

    Raises:
        ConfigError: see `load_settings`.
    """
    path = translation.file.path
    values = {**translation.values, "model": translation.values.get("model") or {}}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as err:
        lines = [*translation.errors, *(_explain(error, translation) for error in err.errors())]
        raise ConfigError("\n".join(lines)) from err
    if translation.errors:
        raise ConfigError("\n".join(translation.errors))
    base = path.resolve().parent
    sections: dict[str, dict[str, str]] = {}
    for section, key in (name.split(".") for name in PATHS):
        value = getattr(getattr(settings, section), key)
        if is_path(f"{section}.{key}", value):
            sections.setdefault(section, {})[key] = str(base / os.path.expanduser(value))
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=paths) for name, paths in sections.items()}
    )


def is_path(name: str, value: object) -> bool:
    """Return whether the value of one of `PATHS` is a path of this machine: code of the operator's may be a module."""
    if not isinstance(value, str) or value in ("", "noop") or is_url(value):
        return False
    return name not in CODE or (is_own_code(value) and ".py:" in value)


def _explain(error: ErrorDetails, translation: Translation) -> str:
    """Turn one finding of pydantic into `file:line: key: what came, what was wanted`, in the words of the file."""
    file = translation.file
    location = tuple(str(part) for part in error["loc"])
    prefixes = [location[:end] for end in range(len(location), 0, -1)]
    known = next((prefix for prefix in prefixes if prefix in file.lines), ())
    where = file.where(file.lines.get(known))
    if error["type"] == "missing":
        name = ".".join(location)
        return f"{where}: {'modelPath' if (name, translation.form) == ('model.path', FLAT_0_10) else name} is missing"
    if error["type"] == "extra_forbidden":
        name = ".".join(location)
        if new := renamed(name):
            return f"{where}: {name}: a key of Cluster Serving among new ones; here it is '{new}'"
        return f"{where}: {name}: unknown key{_nearest(location)}"
    wanted = error["msg"].removeprefix("Value error, ")
    secret = location[:2] == ("data", "src") and "@" in str(error["input"])
    subject = ".".join(known or location)
    if source := next(filter(None, (translation.source_of(".".join(prefix)) for prefix in prefixes)), None):
        where, subject = file.where(source.line), source.key
    return f"{where}: {subject}: {wanted}" + ("" if secret else f" (got {error['input']!r})")


def _nearest(location: tuple[str, ...]) -> str:
    fields: Any = Settings
    for part in location[:-1]:
        fields = _section_of(part)
    names = list(fields.model_fields)
    close = difflib.get_close_matches(location[-1], names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; valid here: {', '.join(names)}"


def _section_of(name: str) -> Any:
    return Settings.model_fields[name].annotation
