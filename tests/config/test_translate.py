"""Files of Cluster Serving: what each key means here, in each generation."""

import logging
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from beam_serving.config.legacy.rewrite import rewrite
from beam_serving.config.legacy.rules import FLAT, NESTED, RULES
from beam_serving.config.legacy.translate import FLAT_0_10, NESTED_0_9, NEW, UP_TO_0_8, Entry, Translation
from beam_serving.config.schema import (
    Data,
    Flink,
    Params,
    Settings,
    Spark,
    all_keys,
    checked,
    load_settings,
    translated,
)
from beam_serving.config.yaml_file import parse_yaml
from beam_serving.errors import ConfigError
from beam_serving.transport.address import WANTED

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"
STREAMS = ("image_stream", "serving_stream")


def translation_of(text: str) -> Translation:
    return translated(parse_yaml(Path("/x/config.yaml"), text))


def settings_of(text: str) -> Settings:
    return checked(translation_of(text))


def warnings_of(translation: Translation) -> dict[str, str]:
    return {entry.key: entry.remark for entry in translation.entries if entry.warns}


def entry_of(key: str, text: str) -> Entry:
    (entry,) = [entry for entry in translation_of(text).entries if entry.key == key]
    return entry


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings_of(text)
    return str(caught.value).replace("/x/", "").splitlines()


def loaded(name: str, caplog: pytest.LogCaptureFixture) -> tuple[Settings, list[str]]:
    """Gives the settings of a file, and what was warned of without the folder."""
    with caplog.at_level(logging.WARNING):
        settings = load_settings(CONFIGS / name)
    return settings, [message.removeprefix(f"{CONFIGS}/") for message in caplog.messages]


def test_the_seed_loads(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("seed.yaml", caplog)
    assert settings.model.path == "/models/mobilenet"
    assert settings.data == Data(shape=(3, 224, 224))
    assert settings.params == Params(batch_size=8, top_n=5)
    assert settings.spark == Spark(master="local[4]", executor_memory="2g", executor_cores=4, total_executor_cores=4)
    assert warned == [
        "seed.yaml:22: log.summary: there is no TensorBoard; params: statistics_s says how often counts are logged"
    ]


def test_0_7_loads_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("v0_7.yaml", caplog)
    assert settings.model.path == str(CONFIGS / "resources/model")
    assert settings.data == Data(src="redis-host:6379", shape=(3, 224, 224))
    assert settings.params == Params(batch_size=4, top_n=1)
    assert settings.spark is not None
    assert settings.spark.master == "spark://master:7077"
    assert warned == []


def test_0_8_loads(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("v0_8.yaml", caplog)
    assert settings.model.outputs == ("scores", "boxes")
    assert settings.data == Data(shape=(784,))
    assert settings.params == Params(batch_size=16, post_processing="topN(3)")
    assert warned == [
        "v0_8.yaml:6: model.inputs: the model's file names its inputs",
        "v0_8.yaml:19: params.performance_mode: params: workers and model: threads say how the cores are used",
    ]


def test_0_9_loads(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("v0_9.yaml", caplog)
    assert settings.name == "birds"
    assert settings.data == Data(src="rediss://redis-host:6379", streams=(*STREAMS, "birds"))
    assert settings.params == Params(workers=4, post_processing="none")
    assert settings.model.threads == 2
    assert (settings.redis.timeout_s, settings.redis.ca_file) == (2.5, None)
    assert settings.flink == Flink(rest="localhost:8081")
    assert [line.split(": ")[1] for line in warned] == [
        "redis.maxmem",
        "secure.secure_enabled",
        "secure.secure_trust_store_path",
        "secure.secure_struct_store_password",
    ]
    assert not any("1234qwer" in line for line in warned)


def test_0_10_loads(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("v0_10.yaml", caplog)
    assert (settings.name, settings.model.path) == ("serving_stream", "/path/to/model")
    assert settings.data == Data()
    assert settings.params == Params(post_processing="topN(1)", workers=2)
    assert settings.model.threads == 4
    assert settings.redis.timeout_s == 5
    assert settings.flink == Flink(rest="localhost:8081")
    assert warned == [
        "v0_10.yaml:12: redisMaxmemory: this service starts no Redis; set maxmemory, and maxmemory-policy "
        "noeviction, in its own"
    ]


def test_2_x_loads_whatever_the_case_of_its_keys(caplog: pytest.LogCaptureFixture) -> None:
    settings, warned = loaded("v2.yaml", caplog)
    assert settings.name == "birds-v2"
    assert settings.model.path == str(CONFIGS / "model")
    assert settings.data == Data(src="rediss://redis.example:6380", streams=(*STREAMS, "birds/v2"))
    assert settings.params == Params(workers=10, post_processing="none")
    assert settings.redis.ca_file == str(CONFIGS / "keys/redis.pem")
    assert [line.split(": ")[1] for line in warned] == [
        "imageResize",
        "InputAlreadyBatched",
        "redisMaxMemory",
        "redisSecureTrustStorePassword",
        "warmUp",
    ]
    assert warned[-1] == "v2.yaml:20: warmUp: unknown key, ignored"
    assert not any("s3cret" in line for line in warned)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("model: {path: m}", NEW),
        ("model: {path: m}\ndata: {src: a, shape: 3}\nparams: {batch_size: 1, top_n: 1}\nflink: {rest: a}", NEW),
        ("model: {path: m}\nparams: {performance_mode: OFF}", UP_TO_0_8),
        ("model: {path: m, name: a}", NESTED_0_9),
        ("model: {path: m}\nsecure: {secure_enabled: false}", NESTED_0_9),
        ("modelpath: m", FLAT_0_10),
        ("model: {path: m, name: a, engine: auto}", NEW),
        ("model: {path: m}\ndata: {filter: pickTopN(2)}", UP_TO_0_8),
        ("model: {path: m}\ndata: {resize_filter: area}", NEW),
        ("model: {path: m, name: a}\ndata: {filter: , resize: true}", NESTED_0_9),
    ],
)
def test_the_generation_is_told_by_the_keys(text: str, form: str) -> None:
    assert translation_of(text).form == form


def test_every_row_of_the_table_is_reached_and_every_name_has_a_row() -> None:
    assert {*FLAT.values(), *NESTED.values(), "data.resize"} == set(RULES)


@pytest.mark.parametrize("name", FLAT)
def test_every_flat_key_is_understood_in_any_case(name: str) -> None:
    for written in (name, name.upper()):
        (entry, *_) = translation_of(f"{written}:\n").entries
        assert entry.key == written
        assert entry.remark
        assert not entry.warns


@pytest.mark.parametrize("name", NESTED)
def test_every_nested_key_is_understood(name: str) -> None:
    section, key = name.split(".")
    (entry, *_) = translation_of(f"{section}:\n  {key}:\n").entries
    assert entry.key == name
    assert not entry.warns


@pytest.mark.parametrize(
    ("text", "new", "warned"),
    [
        ("jobName: image_stream", {"name": "image_stream", "data.streams": [*STREAMS]}, ""),
        ("jobName: 7", {"name": "7", "data.streams": [*STREAMS, "7"]}, ""),
        ("postProcessing: topN(5)", {"params.post_processing": "topN(5)"}, ""),
        ("postProcessing: ' TOPN( 5 ) '", {"params.post_processing": "topN(5)"}, ""),
        ("postProcessing: pickTopN(5)", {"params.post_processing": "pickTopN(5)"}, ""),
        ("redisTimeout: 2500", {"redis.timeout_s": 2.5}, ""),
        ("redisTimeout: '5000'", {"redis.timeout_s": 5}, ""),
        ("coreNumberPerMachine: 8", {"params.workers": 8}, ""),
        ("coreNumberPerMachine: -1", {}, ""),
        ("coreNumberPerMachine: 8\nmodelParallelism: 3\nthreadPerModel: 1", {"model.threads": 2}, ""),
        ("coreNumberPerMachine: 2\nmodelParallelism: 3", {"model.threads": 1}, ""),
        (
            "imageResize: '224, 196'",
            {},
            "images are resized to the model's input; set data: shape: 3,224,196 (of TensorFlow 224,196,3) where the "
            "model does not say it",
        ),
        ("imageResize: 2,2\ndata: {shape: '3,2,2'}", {}, ""),
        ("flinkRestUrl: localhost:8081", {"flink.rest": "localhost:8081"}, ""),
        ("inputAlreadyBatched: true", {}, "the rank of a record tells whether it has a batch axis"),
        ("inputAlreadyBatched: false", {}, ""),
        ("performance_mode: OFF", {}, ""),
        ("performance_mode: 'OFF'", {}, ""),
        ("kafkaUrl: other:9092", {}, "requests come from Redis; data: src says where it is"),
        ("redisSecureEnabled: false", {}, ""),
        ("redisSecureTrustStorePath: a.jks", {}, ""),
        ("redisSecureTrustStorePassword: a", {}, ""),
        ("modelEncrypted: false", {"model.encryption": "none"}, ""),
        ("recordEncrypted: off", {"data.encryption": "none"}, ""),
    ],
)
def test_a_value_is_converted_or_the_reason_why_not_is_given(text: str, new: dict[str, Any], warned: str) -> None:
    entry = entry_of(text.partition(":")[0], text)
    assert entry.new == new
    assert entry.warns == bool(warned)
    assert not warned or entry.remark == warned


@pytest.mark.parametrize(
    ("shape", "new", "meant"),
    [
        ("[1, 2]", [1, 2], (1, 2)),
        ("'[1, 2]'", [1, 2], (1, 2)),
        ("'1,2'", [1, 2], (1, 2)),
        ("[[784]]", [784], (784,)),
        ("[[1], [2]]", [[1], [2]], ((1,), (2,))),
        ("'[[1], [2]]'", [[1], [2]], ((1,), (2,))),
    ],
)
def test_the_shape_of_a_tensor_is_that_of_each_input(shape: str, new: list[Any], meant: tuple[Any, ...]) -> None:
    text = f"model: {{path: m}}\ndata: {{tensor_shape: {shape}}}"
    entry = entry_of("data.tensor_shape", text)
    assert (entry.new, entry.warns) == ({"data.shape": new}, False)
    assert settings_of(text).data.shape == meant


# As the old servers' own template has it.
SEVERAL = """\
model:
  path: m
  inputs:
  outputs:
data:
  src:
  # e.g. [[1,2],[3,224,224],[3,4]]
  shape: {shape}
  type: {types}
  filter:
params:
  core_number: 1
  performance_mode:
redis:
  maxmem:
spark:
  master:
secure:
  secure_enabled:
"""


@given(
    shapes=st.lists(st.lists(st.integers(1, 9999), min_size=1, max_size=4), min_size=2, max_size=4),
    quoted=st.booleans(),
)
def test_the_shapes_of_several_inputs_are_taken_over(shapes: list[list[int]], quoted: bool) -> None:
    text = SEVERAL.format(shape=f"'{shapes}'" if quoted else shapes, types="[image, tensor]")
    translation = translation_of(text)
    assert warnings_of(translation) == {}
    meant = tuple(map(tuple, shapes))
    assert checked(translation).data.shape == meant
    migrated = translated(parse_yaml(Path("/x/config.yaml"), rewrite(translation, all_keys(), {})))
    assert migrated.form == NEW
    assert checked(migrated).data.shape == meant


def test_a_type_of_input_that_nobody_has_is_warned_of() -> None:
    said = warnings_of(translation_of(SEVERAL.format(shape="[[1], [2]]", types="[image, sound]")))
    assert said == {"data.type": "each request tells whether it is an image or a tensor"}


def test_cores_alone_are_a_worker_each() -> None:
    settings = settings_of("model: {path: m}\nparams: {core_number: 6}")
    assert (settings.params.workers, settings.model.threads) == (6, "auto")


def test_tls_is_the_scheme_of_the_address() -> None:
    text = "modelPath: m\nredisSecureEnabled: true\nredisSecureTrustStorePath: ca.pem"
    assert settings_of(text).data.src == "rediss://localhost:6379"
    assert settings_of(f"{text}\nredisUrl: redis://a:1/2").data.src == "rediss://a:1/2"
    assert settings_of(f"{text}\nredisUrl: a:1").redis.ca_file == "/x/ca.pem"
    assert warnings_of(translation_of(text)) == {}


def test_tls_without_certificates_of_its_own_says_whom_it_trusts() -> None:
    said = warnings_of(translation_of("modelPath: m\nredisSecureEnabled: true\nredisSecureTrustStorePath: a.jks"))
    assert said == {
        "redisSecureEnabled": "the system's certificates decide whom to trust; set redis: ca_file to a PEM file where "
        "Redis has its own",
        "redisSecureTrustStorePath": "a Java key store cannot be read here; export its certificate with "
        "keytool -exportcert -rfc and name that file in redis: ca_file",
    }


@pytest.mark.parametrize(
    ("text", "post_processing", "top_n"),
    [
        ("modelPath: m", "none", "auto"),
        ("modelPath: m\npostProcessing:", "none", "auto"),
        ("modelPath: m\npostProcessing: ''", "none", "auto"),
        ("model: {path: m, name: a}", "none", "auto"),
        ("model: {path: m, name: a}\nparams: {top_n: 3}", None, 3),
        ("model: {path: m, name: a}\nparams: {top_n: }", "none", "auto"),
        ("model: {path: m, name: a}\ndata: {filter: }\nparams: {top_n: 3}", None, 3),
        ("model: {path: m, name: a}\ndata: {filter: topN(3)}\nparams: {top_n: }", "topN(3)", "auto"),
        ("model: {path: m}\ndata: {filter: }", None, 1),
        ("model: {path: m}\ndata: {image_shape: 3}", None, 1),
        ("model: {path: m}\nparams: {top_n: , engine_type: }", None, 1),
        ("model: {path: m}\ndata: {filter: }\nparams: {top_n: , engine_type: }", None, 1),
        ("model: {path: m}\ndata: {filter: }\nparams: {top_n: 3, engine_type: }", None, 3),
        ("model: {path: m}\ndata: {filter: topN(3)}", "topN(3)", "auto"),
        ("model: {path: m}\ndata: {filter: topN(3)}\nparams: {top_n: }", "topN(3)", "auto"),
        ("model: {path: m}", None, "auto"),
    ],
)
def test_where_nothing_was_asked_for_results_are_what_the_old_servers_sent(
    text: str, post_processing: str | None, top_n: int | str
) -> None:
    translation = translation_of(text)
    migrated = translated(parse_yaml(Path("/x/config.yaml"), rewrite(translation, all_keys(), {})))
    for params in (checked(translation).params, checked(migrated).params):
        assert (params.post_processing, params.top_n) == (post_processing, top_n)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("modelEncrypted: maybe", "wants true or false"),
        ("recordEncrypted: 2", "wants true or false"),
        ("queueUsed: kafka", "wants redis: no other queue is served"),
        ("postProcessing: best(3)", "wants topN(n) or pickTopN(n) with n from 1"),
        ("postProcessing: topN(0)", "wants topN(n) or pickTopN(n) with n from 1"),
        ("redisTimeout: 0", "wants milliseconds, more than 0"),
        ("redisTimeout: soon", "wants milliseconds, more than 0"),
        ("imageResize: 224", "wants height,width, as 224,224"),
        ("coreNumberPerMachine: 0", "wants a whole number from 1"),
        ("redisSecureEnabled: maybe", "wants true or false"),
        ("jobName: true", "wants a name"),
        ("modelParallelism: 0", "wants a number from 1 to 256 or 'auto'"),
        ("threadPerModel: -1", "wants a number from 0 to 1024 or 'auto'"),
        ("redisUrl: http://a", f"wants {WANTED}"),
    ],
)
def test_a_wrong_value_is_named_as_the_old_file_does(line: str, said: str) -> None:
    key, value = line.split(": ", 1)
    got = {"true": True, "yes": True}.get(value, int(value) if value.lstrip("-").isdecimal() else value)
    assert mistakes(f"modelPath: m\n{line}\n") == [f"config.yaml:2: {key}: {said} (got {got!r})"]


def test_every_mistake_of_an_old_file_is_told_at_once() -> None:
    assert mistakes("redisTimeout: 0\nthreadPerModel: -1\n") == [
        "config.yaml:1: redisTimeout: wants milliseconds, more than 0 (got 0)",
        "config.yaml: modelPath is missing; it names the directory with the model",
        "config.yaml:2: threadPerModel: wants a number from 0 to 1024 or 'auto' (got -1)",
    ]


def test_a_password_in_an_old_address_is_refused_and_not_repeated() -> None:
    (said,) = mistakes("modelPath: m\nredisUrl: redis://:s3cret@host:6379\n")
    assert said.startswith("config.yaml:2: redisUrl: a password must not stand in the file; ")
    assert "s3cret" not in said


def test_a_wrong_value_that_is_merged_in_is_named_without_a_line() -> None:
    said = mistakes("model: {path: m, name: a}\nredis: {<<: {timeout: 0}}\n")
    assert said == ["config.yaml: redis.timeout: wants milliseconds, more than 0 (got 0)"]


def test_two_keys_that_say_different_things_are_refused() -> None:
    assert mistakes("modelPath: m\nMODELPATH: n\n") == [
        "config.yaml:2: MODELPATH: modelPath in line 1 says something else of model.path; keep one"
    ]
    assert settings_of("modelPath: /m\nMODELPATH: /m\n").model.path == "/m"


def test_an_unknown_key_of_an_old_file_is_passed_over_with_a_warning() -> None:
    translation = translation_of("modelPath: m\njobNmae: a\nother: {a: 1}\nsecure: {colour: red}\nempty:\n")
    assert checked(translation).name == "beam-serving"
    assert warnings_of(translation) == {
        "jobNmae": "unknown key, ignored; did you mean 'jobName'?",
        "other.a": "unknown key, ignored",
        "secure.colour": "unknown key, ignored",
    }


def test_an_old_key_in_a_new_file_is_refused_with_its_new_name() -> None:
    text = "model: {path: m, engine: auto}\nredis: {timeout: 5000}\njobName: a\nredisTimeOut: 1\n"
    assert mistakes(text) == [
        "config.yaml:2: redis.timeout: a key of Cluster Serving among new ones; here it is 'redis.timeout_s'",
        "config.yaml:3: jobName: a key of Cluster Serving among new ones; here it is 'name'",
        "config.yaml:4: redisTimeOut: a key of Cluster Serving among new ones; here it is 'redis.timeout_s'",
    ]


def test_a_section_that_is_none_is_a_mistake_in_an_old_file_too() -> None:
    (said,) = mistakes("modelPath: m\ndata: 5\n")
    assert said == "config.yaml:2: data: wants keys with values below it, indented (got 5)"


@pytest.mark.parametrize(
    "text", ["modelEncrypted: true", "model: {model_encrypted: yes}", "secure: {model_encrypted: on}"]
)
def test_an_encrypted_model_is_served_and_the_rest_is_told(text: str) -> None:
    translation = translation_of(text)
    (entry,) = [entry for entry in translation.entries if "ncrypted" in entry.key]
    assert entry.new == {"model.encryption": "cbc"}
    assert entry.warns
    assert entry.remark == (
        "the hash model_secured in Redis is not read: put its secret and salt into BEAM_SERVING_MODEL_SECRET and "
        "BEAM_SERVING_MODEL_SALT, or a file for model: secret_file; AES-CBC shows no tampering: "
        "beam-serving model encrypt --from cbc makes files for model: encryption: gcm; a secret of fewer than 16 "
        "characters wants model: allow_weak_secret: true in a file of the new form (beam-serving config migrate)"
    )


@pytest.mark.parametrize("text", ["recordEncrypted: true", "secure: {record_encrypted: 'yes'}"])
def test_encrypted_records_are_served_and_the_rest_is_told(text: str) -> None:
    translation = translation_of(text)
    (entry,) = [entry for entry in translation.entries if "ncrypted" in entry.key]
    assert entry.new == {"data.encryption": "images"}
    assert entry.warns
    assert entry.remark == (
        "the key that all old servers had built in is refused: choose a secret and a salt, for the clients and for "
        "BEAM_SERVING_RECORD_SECRET and BEAM_SERVING_RECORD_SALT, or a file for data: secret_file"
    )


@pytest.mark.parametrize(
    ("kind", "shape", "unused"),
    [
        ("image", (3, 224, 224), "data.tensor_shape"),
        ("", (3, 224, 224), "data.tensor_shape"),
        ("tensor", ((784,), (2,)), "data.image_shape"),
        ("TENSOR", ((784,), (2,)), "data.image_shape"),
    ],
)
def test_of_two_shapes_the_type_of_the_data_says_which_counts(kind: str, shape: object, unused: str) -> None:
    text = f"""\
model: {{path: m}}
data:
  data_type: {kind}
  image_shape: 3,224,224
  tensor_shape: "[[784],[2]]"
  filter: topN(1)
"""
    assert settings_of(text).data.shape == shape
    assert entry_of(unused, text).new == {}
    assert warnings_of(translation_of(text)) == {}


@pytest.mark.parametrize(
    "shape",
    ["[[3,224,224],[10]]", '"[3,224,224],[10]"', '"[[3,224,224],[10]]"', '"3,224,224;10"', '"[3,224,224]; [10]"'],
)
@pytest.mark.parametrize("key", ["image_shape", "shape", "tensor_shape"])
def test_several_shapes_are_read_in_each_way_that_users_wrote_them(key: str, shape: str) -> None:
    if key == "tensor_shape" and ";" in shape:
        return  # JSON there
    text = f"model: {{path: m}}\ndata:\n  {key}: {shape}\nparams: {{engine_type: x}}\n"
    assert settings_of(text).data.shape == ((3, 224, 224), (10,))


def test_top_n_beside_a_filter_is_not_used_and_said() -> None:
    text = "model: {path: m}\ndata: {filter: topN(3)}\nparams: {top_n: 5, engine_type: }\n"
    assert settings_of(text).params == Params(post_processing="topN(3)")
    assert warnings_of(translation_of(text)) == {
        "params.top_n": "not used beside postProcessing or data.filter, which says what results hold"
    }
