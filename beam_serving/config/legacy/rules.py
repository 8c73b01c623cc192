"""The table of all keys that Cluster Serving ever had and that this project does not have under the same name."""

from __future__ import annotations

from typing import NamedTuple

from beam_serving.config.legacy.conversions import (
    Convert,
    address,
    cores,
    encrypted_model,
    encrypted_records,
    image_resize,
    image_shape,
    milliseconds,
    moved,
    post_processing,
    queue,
    service_name,
    tensor_shape,
    threads,
    tls,
    trust_store,
    trust_store_password,
    unused,
)


class Rule(NamedTuple):
    """What becomes of a key: `new` is the key that its value goes to, empty for one that is never used."""

    new: str
    convert: Convert
    secret: bool = False


RULES = {
    "modelPath": Rule("model.path", moved("model.path")),
    "jobName": Rule("name", service_name),
    "redisUrl": Rule("data.src", address),
    "postProcessing": Rule("params.post_processing", post_processing),
    "modelParallelism": Rule("params.workers", moved("params.workers")),
    "threadPerModel": Rule("model.threads", threads),
    "coreNumberPerMachine": Rule("", cores),
    "redisTimeout": Rule("redis.timeout_s", milliseconds),
    "flinkRestUrl": Rule("flink.rest", moved("flink.rest", "used with --runner=FlinkRunner only")),
    "imageResize": Rule("", image_resize),
    "inputAlreadyBatched": Rule("", unused("the rank of a record tells whether it has a batch axis", False)),
    "redisMaxmemory": Rule(
        "", unused("this service starts no Redis; set maxmemory, and maxmemory-policy noeviction, in its own")
    ),
    "performance_mode": Rule(
        "", unused("params: workers and model: threads say how the cores are used", False, "off", "false")
    ),
    "queueUsed": Rule("", queue),
    "kafkaUrl": Rule("", unused("requests come from Redis; data: src says where it is", "localhost:9092")),
    "redisSecureEnabled": Rule("", tls),
    "redisSecureTrustStorePath": Rule("redis.ca_file", trust_store),
    "redisSecureTrustStorePassword": Rule("", trust_store_password, secret=True),
    "modelEncrypted": Rule("model.encryption", encrypted_model),
    "recordEncrypted": Rule("data.encryption", encrypted_records),
    # What no later version has; under the name that it had.
    "data.shape": Rule("data.shape", moved("data.shape")),
    "data.image_shape": Rule("data.shape", image_shape),
    "data.tensor_shape": Rule("data.shape", tensor_shape),
    "data.data_type": Rule("", unused("each request tells whether it is an image or a tensor", "image", "tensor")),
    "data.resize": Rule("", unused("images are always resized to the model's input; data: resize says how", True)),
    "model.inputs": Rule("", unused("the model's file names its inputs")),
    "model.mode": Rule("", unused("params: workers and model: threads say how the cores are used")),
    "params.engine_type": Rule("", unused("model: engine says what runs the model")),
    "log.error": Rule("", unused("errors are always logged; --log-level says what else", True, "y")),
    "log.summary": Rule(
        "", unused("there is no TensorBoard; params: statistics_s says how often counts are logged", False, "n")
    ),
}
"""By the name of 2.x, or the last one that it had."""

FLAT = {
    **{name.lower(): name for name in RULES if "." not in name},
    "performancemode": "performance_mode",
    "model_encrypted": "modelEncrypted",
    "record_encrypted": "recordEncrypted",
    "secureenabled": "redisSecureEnabled",
    "securetruststorepath": "redisSecureTrustStorePath",
    "securestructstorepassword": "redisSecureTrustStorePassword",
    "redissecuretruststoretoken": "redisSecureTrustStorePassword",
}
"""Names at the top level from 0.10 on, in lower case: that of 2.x."""

UP_TO_0_8_KEYS = {
    "data.image_shape": "data.image_shape",
    "data.tensor_shape": "data.tensor_shape",
    "data.data_type": "data.data_type",
    "data.filter": "postProcessing",
    "model.inputs": "model.inputs",
    "model.mode": "model.mode",
    "params.performance_mode": "performance_mode",
    "params.engine_type": "params.engine_type",
    "log.error": "log.error",
    "log.summary": "log.summary",
}

NEW_IN_0_9 = {
    "model.name": "jobName",
    "model.model_encrypted": "modelEncrypted",
    "data.type": "data.data_type",
    "data.batched": "inputAlreadyBatched",
    "params.core_number": "coreNumberPerMachine",
    "params.model_number": "modelParallelism",
    "redis.maxmem": "redisMaxmemory",
    "redis.timeout": "redisTimeout",
    "secure.secure_enabled": "redisSecureEnabled",
    "secure.secure_trust_store_path": "redisSecureTrustStorePath",
    "secure.secure_trust_store_password": "redisSecureTrustStorePassword",
    "secure.secure_struct_store_password": "redisSecureTrustStorePassword",
    "secure.model_encrypted": "modelEncrypted",
    "secure.record_encrypted": "recordEncrypted",
}

STILL_THERE = {
    "model.path": "modelPath",
    "data.src": "redisUrl",
    "data.shape": "data.shape",
    "flink.rest": "flinkRestUrl",
}
"""Keys of old files whose name has not changed, and that others depend on."""

SAME = ("model.outputs", "params.batch_size", "params.top_n")
"""Further keys that old files have as the new form does; so is the whole section `spark`."""

NESTED = {**UP_TO_0_8_KEYS, **NEW_IN_0_9, **STILL_THERE}
