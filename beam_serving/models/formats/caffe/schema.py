"""The messages of a deploy `.prototxt` that we read, as descriptors for protobuf's own text parser.

Source: names, types and enum values of `caffe.proto` (BVLC; SSD and other forks for the layers that only they have).
Fields that change nothing in a result are left out: `textformat.py` names whatever is not here. All integers have 64
bits and all numbers are doubles, so that a value out of range is refused by who reads it, with its layer. The numbers
of fields are not Caffe's: text has names only, and weights are read by `weights.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as Proto

Kind: TypeAlias = "_Field.Type.ValueType | str"
"""A scalar type of protobuf, or the name of a message or an enum; in a list where a field may be repeated."""

_Field = descriptor_pb2.FieldDescriptorProto
INT, REAL, FLAG, TEXT = _Field.TYPE_INT64, _Field.TYPE_DOUBLE, _Field.TYPE_BOOL, _Field.TYPE_STRING

V1_TYPES: Final = {
    "ABSVAL": (35, "AbsVal"),
    "ACCURACY": (1, "Accuracy"),
    "ARGMAX": (30, "ArgMax"),
    "BNLL": (2, "BNLL"),
    "CONCAT": (3, "Concat"),
    "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"),
    "CONVOLUTION": (4, "Convolution"),
    "DATA": (5, "Data"),
    "DECONVOLUTION": (39, "Deconvolution"),
    "DROPOUT": (6, "Dropout"),
    "DUMMY_DATA": (32, "DummyData"),
    "ELTWISE": (25, "Eltwise"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"),
    "EXP": (38, "Exp"),
    "FLATTEN": (8, "Flatten"),
    "HDF5_DATA": (9, "HDF5Data"),
    "HDF5_OUTPUT": (10, "HDF5Output"),
    "HINGE_LOSS": (28, "HingeLoss"),
    "IM2COL": (11, "Im2col"),
    "IMAGE_DATA": (12, "ImageData"),
    "INFOGAIN_LOSS": (13, "InfogainLoss"),
    "INNER_PRODUCT": (14, "InnerProduct"),
    "LRN": (15, "LRN"),
    "MEMORY_DATA": (29, "MemoryData"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"),
    "MVN": (34, "MVN"),
    "NONE": (0, "None"),
    "POOLING": (17, "Pooling"),
    "POWER": (26, "Power"),
    "RELU": (18, "ReLU"),
    "SIGMOID": (19, "Sigmoid"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"),
    "SILENCE": (36, "Silence"),
    "SLICE": (33, "Slice"),
    "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"),
    "SPLIT": (22, "Split"),
    "TANH": (23, "TanH"),
    "THRESHOLD": (31, "Threshold"),
    "WINDOW_DATA": (24, "WindowData"),
}
"""Types of layers as they were written until 2014, each with its number and today's name."""

_ENUMS: dict[str, Mapping[str, int]] = {
    "CodeType": {"CORNER": 1, "CENTER_SIZE": 2, "CORNER_SIZE": 3},
    "EltwiseOperation": {"PROD": 0, "SUM": 1, "MAX": 2},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "ReductionOperation": {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "V1LayerType": {name: number for name, (number, _) in V1_TYPES.items()},
}

_PARAMETERS: dict[str, dict[str, Kind | list[Kind]]] = {
    "argmax_param": {"out_max_val": FLAG, "top_k": INT, "axis": INT},
    "batch_norm_param": {"use_global_stats": FLAG, "eps": REAL},
    "bias_param": {"axis": INT, "num_axes": INT},
    "bn_param": {"eps": REAL},
    "clip_param": {"min": REAL, "max": REAL},
    "concat_param": {"axis": INT, "concat_dim": INT},
    "convolution_param": {
        "num_output": INT,
        "bias_term": FLAG,
        "group": INT,
        "axis": INT,
        "pad": [INT],
        "kernel_size": [INT],
        "stride": [INT],
        "dilation": [INT],
        **{f"{name}_{side}": INT for name in ("pad", "kernel", "stride", "dilation") for side in "hw"},
    },
    "crop_param": {"axis": INT, "offset": [INT]},
    "detection_output_param": {
        "num_classes": INT,
        "share_location": FLAG,
        "background_label_id": INT,
        "nms_param": "nms_param",
        "code_type": "CodeType",
        "variance_encoded_in_target": FLAG,
        "keep_top_k": INT,
        "confidence_threshold": REAL,
        "clip": FLAG,
    },
    "eltwise_param": {"operation": "EltwiseOperation", "coeff": [REAL]},
    "elu_param": {"alpha": REAL},
    "exp_param": {"base": REAL, "scale": REAL, "shift": REAL},
    "flatten_param": {"axis": INT, "end_axis": INT},
    "inner_product_param": {"num_output": INT, "bias_term": FLAG, "axis": INT, "transpose": FLAG},
    "input_param": {"shape": ["BlobShape"]},
    "interp_param": dict.fromkeys(("height", "width", "zoom_factor", "shrink_factor", "pad_beg", "pad_end"), INT),
    "log_param": {"base": REAL, "scale": REAL, "shift": REAL},
    "lrn_param": {"local_size": INT, "alpha": REAL, "beta": REAL, "norm_region": "NormRegion", "k": REAL},
    "memory_data_param": {"batch_size": INT, "channels": INT, "height": INT, "width": INT},
    "mvn_param": {"normalize_variance": FLAG, "across_channels": FLAG, "eps": REAL},
    "norm_param": {"across_spatial": FLAG, "channel_shared": FLAG, "eps": REAL},
    "permute_param": {"order": [INT]},
    "pooling_param": {
        "pool": "PoolMethod",
        "pad": INT,
        "kernel_size": INT,
        "stride": INT,
        "global_pooling": FLAG,
        **{f"{name}_{side}": INT for name in ("pad", "kernel", "stride") for side in "hw"},
        "ceil_mode": FLAG,
        "round_mode": "RoundMode",
    },
    "power_param": {"power": REAL, "scale": REAL, "shift": REAL},
    "prelu_param": {"channel_shared": FLAG},
    "prior_box_param": {
        "min_size": [REAL],
        "max_size": [REAL],
        "aspect_ratio": [REAL],
        "flip": FLAG,
        "clip": FLAG,
        "variance": [REAL],
        "img_size": REAL,
        "img_h": REAL,
        "img_w": REAL,
        "step": REAL,
        "step_h": REAL,
        "step_w": REAL,
        "offset": REAL,
    },
    "reduction_param": {"operation": "ReductionOperation", "axis": INT, "coeff": REAL},
    "relu_param": {"negative_slope": REAL},
    "reorg_param": {"stride": INT, "reverse": FLAG},
    "reshape_param": {"shape": "BlobShape", "axis": INT, "num_axes": INT},
    "scale_param": {"axis": INT, "num_axes": INT, "bias_term": FLAG},
    "shuffle_channel_param": {"group": INT},
    "sigmoid_param": {},
    "slice_param": {"axis": INT, "slice_dim": INT, "slice_point": [INT]},
    "softmax_param": {"axis": INT},
    "swish_param": {"beta": REAL},
    "tanh_param": {},
    "threshold_param": {"threshold": REAL},
    "tile_param": {"axis": INT, "tiles": INT},
    "upsample_param": {"scale": INT},
}
"""By field of a layer; each message is called as its field, which is how messages of errors name it."""

_LAYER: dict[str, Kind | list[Kind]] = {
    "name": TEXT,
    "bottom": [TEXT],
    "top": [TEXT],
    "phase": "Phase",
    "include": ["NetStateRule"],
    "exclude": ["NetStateRule"],
    **{name: name for name in _PARAMETERS},
}
_MESSAGES: dict[str, Mapping[str, Kind | list[Kind]]] = {
    **_PARAMETERS,
    "BlobShape": {"dim": [INT]},
    "NetState": {"level": INT, "stage": [TEXT]},
    "NetStateRule": {
        "phase": "Phase",
        "min_level": INT,
        "max_level": INT,
        "stage": [TEXT],
        "not_stage": [TEXT],
    },
    "nms_param": {"nms_threshold": REAL, "top_k": INT, "eta": REAL},
    "Layer": {"type": TEXT, **_LAYER},
    "V1Layer": {"type": "V1LayerType", "layer": ["Layer"], **_LAYER},
    "Net": {
        "input": [TEXT],
        "input_dim": [INT],
        "input_shape": ["BlobShape"],
        "state": "NetState",
        "layer": ["Layer"],
        "layers": ["V1Layer"],
    },
}
_PACKAGE = "beam_serving.caffe"


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="beam_serving/caffe", package=_PACKAGE, syntax="proto2")
    for name, values in _ENUMS.items():
        # Values are unique within their package, so each enum has a message around it.
        enum = file.message_type.add(name=name).enum_type.add(name="Value")
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), 1):
            field = message.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
            if isinstance(kind, list):
                (kind,), field.label = kind, _Field.LABEL_REPEATED
            if isinstance(kind, str):
                field.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}.Value" if kind in _ENUMS else f".{_PACKAGE}.{kind}"
            else:
                field.type = kind
    return file


def new_net() -> Proto:
    """Return an empty message of a whole net."""
    return message_factory.GetMessageClass(NET)()


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_file())
NET: Final = _POOL.FindMessageTypeByName(f"{_PACKAGE}.Net")
