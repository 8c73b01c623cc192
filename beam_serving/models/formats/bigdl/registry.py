"""Which builder builds which class. The key is the simple name of the Java class."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from beam_serving.models.formats.bigdl import activations as act
from beam_serving.models.formats.bigdl import arithmetic as math
from beam_serving.models.formats.bigdl import containers as box
from beam_serving.models.formats.bigdl import convolution as conv
from beam_serving.models.formats.bigdl import keras, pooling, quantised, shapes, tables, transformer
from beam_serving.models.formats.bigdl import normalisation as norm
from beam_serving.models.formats.bigdl import recurrent as rnn
from beam_serving.models.formats.bigdl.layer import Activity, Layer

Builder: TypeAlias = Callable[[Layer, Activity], Activity]

LAYERS: Mapping[str, Builder] = {
    "Sequential": box.sequential,
    "StaticGraph": box.graph,
    "DynamicGraph": box.graph,
    "Graph": box.graph,
    "Concat": box.concat,
    "ConcatTable": box.concat_table,
    "ParallelTable": box.parallel_table,
    "MapTable": box.map_table,
    "Bottle": box.bottle,
    "TimeDistributed": box.time_distributed,
    "LayerNormalization": norm.layer_normalisation,
    "Input": act.identity,
    "Identity": act.identity,
    "Echo": act.identity,
    "Contiguous": act.identity,
    "Dropout": act.dropout,
    "GaussianDropout": act.identity,
    "GaussianNoise": act.identity,
    "SpatialDropout1D": act.spatial_dropout,
    "SpatialDropout2D": act.spatial_dropout,
    "SpatialDropout3D": act.spatial_dropout,
    "GradientReversal": act.identity,
    "L1Penalty": act.identity,
    "ActivityRegularization": act.identity,
    "NegativeEntropyPenalty": act.identity,
    "ReLU": act.relu,
    "ReLU6": act.relu6,
    "Tanh": act.tanh,
    "Sigmoid": act.sigmoid,
    "HardTanh": act.hard_tanh,
    "Clamp": act.clamp,
    "HardSigmoid": act.hard_sigmoid,
    "SoftPlus": act.softplus,
    "SoftSign": act.softsign,
    "ELU": act.elu,
    "LeakyReLU": act.leaky_relu,
    "RReLU": act.rrelu,
    "PReLU": act.prelu,
    "SReLU": act.srelu,
    "Threshold": act.threshold,
    "BinaryThreshold": act.binary_threshold,
    "SoftShrink": act.soft_shrink,
    "HardShrink": act.hard_shrink,
    "TanhShrink": act.tanh_shrink,
    "LogSigmoid": act.log_sigmoid,
    "SoftMax": act.softmax,
    "SoftMin": act.softmin,
    "LogSoftMax": act.log_softmax,
    "Masking": act.masking,
    "Abs": act.absolute,
    "Exp": act.exponential,
    "Log": act.logarithm,
    "Negative": act.negative,
    "Sqrt": act.square_root,
    "Square": act.square,
    "Power": act.power,
    "Linear": math.linear,
    "SparseLinear": math.linear,
    "Add": math.add,
    "Mul": math.mul,
    "MulConstant": math.mul_constant,
    "AddConstant": math.add_constant,
    "CMul": math.cmul,
    "CAdd": math.cadd,
    "Scale": math.scale,
    "CAddTable": math.cadd_table,
    "CSubTable": math.csub_table,
    "CMulTable": math.cmul_table,
    "CDivTable": math.cdiv_table,
    "CMaxTable": math.cmax_table,
    "CMinTable": math.cmin_table,
    "CAveTable": math.cave_table,
    "CSubTableExpand": math.csub_table,
    "CMulTableExpand": math.cmul_table,
    "MM": math.matrix_product,
    "MV": math.matrix_vector,
    "DotProduct": math.dot_product,
    "CosineDistance": math.cosine_distance,
    "PairwiseDistance": math.pairwise_distance,
    "CrossProduct": math.cross_product,
    "Bilinear": math.bilinear,
    "Cosine": math.cosine,
    "Euclidean": math.euclidean,
    "Maxout": math.maxout,
    "MixtureTable": math.mixture_table,
    "LookupTable": math.lookup_table,
    "Reshape": shapes.view_as,
    "View": shapes.view,
    "InferReshape": shapes.infer_reshape,
    "Squeeze": shapes.squeeze,
    "Unsqueeze": shapes.unsqueeze,
    "Select": shapes.select,
    "Transpose": shapes.swap_dimensions,
    "Narrow": shapes.cut,
    "Mean": shapes.mean,
    "Sum": shapes.total,
    "Max": shapes.largest,
    "Min": shapes.smallest,
    "Padding": shapes.padding,
    "SpatialZeroPadding": shapes.zero_padding,
    "Cropping2D": shapes.cropping_2d,
    "Cropping3D": shapes.cropping_3d,
    "UpSampling1D": shapes.upsampling_1d,
    "UpSampling2D": shapes.upsampling_2d,
    "UpSampling3D": shapes.upsampling_3d,
    "ResizeBilinear": shapes.resize_bilinear,
    "Tile": shapes.tile,
    "Replicate": shapes.replicate,
    "Reverse": shapes.reverse,
    "ExpandSize": shapes.expand_size,
    "JoinTable": tables.join_table,
    "SplitTable": tables.split_table,
    "BifurcateSplitTable": tables.bifurcate_table,
    "SelectTable": tables.select_table,
    "NarrowTable": tables.narrow_table,
    "FlattenTable": tables.flatten_table,
    "Pack": tables.pack,
    "Index": tables.index,
    "SpatialConvolution": conv.spatial_convolution,
    "SpatialShareConvolution": conv.spatial_convolution,
    "SpatialDilatedConvolution": conv.dilated_convolution,
    "SpatialFullConvolution": conv.full_convolution,
    "SpatialSeparableConvolution": conv.separable_convolution,
    "SpatialConvolutionMap": conv.convolution_map,
    "TemporalConvolution": conv.temporal_convolution,
    "VolumetricConvolution": conv.volumetric_convolution,
    "VolumetricFullConvolution": conv.volumetric_full_convolution,
    "LocallyConnected1D": conv.locally_connected_1d,
    "LocallyConnected2D": conv.locally_connected_2d,
    "SpatialMaxPooling": pooling.max_pooling,
    "SpatialAveragePooling": pooling.average_pooling,
    "TemporalMaxPooling": pooling.temporal_max_pooling,
    "VolumetricMaxPooling": pooling.volumetric_max_pooling,
    "VolumetricAveragePooling": pooling.volumetric_average_pooling,
    "BatchNormalization": norm.batch_normalisation,
    "SpatialBatchNormalization": norm.batch_normalisation,
    "SpatialCrossMapLRN": norm.cross_map_lrn,
    "SpatialWithinChannelLRN": norm.within_channel_lrn,
    "SpatialSubtractiveNormalization": norm.subtractive,
    "SpatialDivisiveNormalization": norm.divisive,
    "SpatialContrastiveNormalization": norm.contrastive,
    "Normalize": norm.normalize,
    "NormalizeScale": norm.normalize_scale,
    "Attention": transformer.attention,
    "FeedForwardNetwork": transformer.feed_forward,
    "SelfAttentionMask": transformer.self_attention_mask,
    "PositionEncode": transformer.position_encoding,
    "PositionEncodeWithShift": transformer.shifted_position_encoding,
    "Transformer": transformer.language_model,
    "Recurrent": rnn.recurrent,
    "RecurrentDecoder": rnn.recurrent_decoder,
    "BiRecurrent": rnn.bidirectional,
    "MultiRNNCell": rnn.multi_cell,
    "RnnCell": rnn.cell_step,
    "LSTM": rnn.cell_step,
    "LSTMPeephole": rnn.cell_step,
    "GRU": rnn.cell_step,
    "ConvLSTMPeephole": rnn.cell_step,
    "ConvLSTMPeephole3D": rnn.cell_step,
}
"""Layers of `com.intel.analytics.bigdl.nn`."""

QUANTISED: Mapping[str, Builder] = {
    "Linear": quantised.linear,
    "SpatialConvolution": quantised.convolution,
    "SpatialDilatedConvolution": quantised.dilated_convolution,
}
"""Layers of `com.intel.analytics.bigdl.nn.quantized`."""

KERAS: Mapping[str, Builder] = {"Reshape": keras.keras_reshape}
"""Keras-style layers that are more than a wrapper of the modules inside them."""

INTERNAL: Mapping[str, Builder] = {
    "InternalRecurrent": rnn.recurrent,
    "InternalTimeDistributed": box.time_distributed,
}
"""Analytics Zoo's versions of plain layers, which its Keras-style layers hold."""


def builder_of(class_name: str) -> Builder | None:
    """Return the builder of a Java class, or None where there is none."""
    package, _, kind = class_name.rpartition(".")
    if package.endswith(".quantized"):
        return QUANTISED.get(kind)
    if package.endswith(".internal"):
        return INTERNAL.get(kind)
    if ".keras" in package:
        builder: Builder = KERAS.get(kind, keras.keras_layer)
        return builder
    return LAYERS.get(kind)
