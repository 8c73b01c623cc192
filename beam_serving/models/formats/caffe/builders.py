"""Which builder makes which type of layer."""

from collections.abc import Callable

import openvino.opset13 as ops

from beam_serving.models.formats.caffe import (
    activation,
    arithmetic,
    convolution,
    detection,
    normalization,
    pooling,
    resize,
    shape,
)
from beam_serving.models.formats.caffe.layer_context import Site, Tensor

Builder = Callable[[Site], list[Tensor]]
"""Returns the tops of a layer; raises TextError, without the layer's name, for what it cannot make."""

BUILDERS: dict[str, Builder] = {
    "AbsVal": activation.element_wise(ops.abs),
    "ArgMax": shape.build_arg_max,
    "Axpy": arithmetic.build_axpy,
    "BN": normalization.build_bn,
    "BNLL": activation.element_wise(ops.softplus),
    "BatchNorm": normalization.build_batch_norm,
    "Bias": arithmetic.build_bias,
    "Clip": activation.build_clip,
    "Concat": shape.build_concat,
    "Convolution": convolution.build_convolution,
    "ConvolutionDepthwise": convolution.build_depthwise,
    "Crop": shape.build_crop,
    "Deconvolution": convolution.build_deconvolution,
    "DepthwiseConvolution": convolution.build_depthwise,
    "DetectionOutput": detection.build_detection_output,
    "Dropout": activation.build_identity,
    "ELU": activation.build_elu,
    "Eltwise": arithmetic.build_eltwise,
    "Exp": activation.build_exp,
    "Flatten": shape.build_flatten,
    "InnerProduct": convolution.build_inner_product,
    "Interp": resize.build_interp,
    "LRN": normalization.build_lrn,
    "Log": activation.build_log,
    "MVN": normalization.build_mvn,
    "Normalize": normalization.build_normalize,
    "PReLU": activation.build_prelu,
    "Permute": shape.build_permute,
    "Pooling": pooling.build_pooling,
    "Power": activation.build_power,
    "PriorBox": detection.build_prior_box,
    "ReLU": activation.build_relu,
    "ReLU6": activation.build_relu6,
    "Reduction": shape.build_reduction,
    "Reorg": resize.build_reorg,
    "Reshape": shape.build_reshape,
    "Scale": arithmetic.build_scale,
    "ShuffleChannel": resize.build_shuffle_channel,
    "Sigmoid": activation.element_wise(ops.sigmoid, "sigmoid_param"),
    "Slice": shape.build_slice,
    "Softmax": shape.build_softmax,
    "Split": activation.build_identity,
    "Swish": activation.build_swish,
    "TanH": activation.element_wise(ops.tanh, "tanh_param"),
    "Threshold": activation.build_threshold,
    "Tile": shape.build_tile,
    "Upsample": resize.build_upsample,
}
