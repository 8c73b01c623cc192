"""Layers of Caffe's forks that resize or reorder pixels: Interp, Upsample, Reorg, ShuffleChannel."""

import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import MAX_KERNEL, Site, Tensor, indices, positive, shape_of
from beam_serving.models.formats.caffe.message import TextError


def build_interp(site: Site) -> list[Tensor]:
    """DeepLab's bilinear resizing: first and last pixels of an axis stay on each other.

    The size is given, or made by shrinking, size = (size - 1) / shrink + 1, and then by zooming,
    size = size + (size - 1) * (zoom - 1).
    """
    param = site.param("interp_param")
    data = site.bottom(rank=4)
    if param.integer("pad_beg", 0) or param.integer("pad_end", 0):
        raise TextError("pad_beg and pad_end are not supported, wanted 0")
    height, width = param.integer("height", 0), param.integer("width", 0)
    shrink, zoom = param.integer("shrink_factor", 1), param.integer("zoom_factor", 1)
    positive("shrink_factor or zoom_factor", [shrink, zoom])
    sizes = [height, width]
    if not height and not width:
        shrunk = [(size - 1) // shrink + 1 for size in shape_of(data)[2:]]
        sizes = [size + (size - 1) * (zoom - 1) for size in shrunk]
    _check_sizes(sizes)
    return [
        ops.interpolate(
            data,
            indices(sizes),
            "linear_onnx",
            "sizes",
            coordinate_transformation_mode="align_corners",
            axes=indices([2, 3]),
        ).output(0)
    ]


def build_upsample(site: Site) -> list[Tensor]:
    """YOLO's upsampling: every pixel becomes `scale` x `scale` equal ones."""
    param = site.param("upsample_param")
    data = site.bottom(rank=4)
    scale = param.integer("scale", 2)
    _check_sizes([scale])
    sizes = [size * scale for size in shape_of(data)[2:]]
    _check_sizes(sizes)
    return [
        ops.interpolate(
            data,
            indices(sizes),
            "nearest",
            "sizes",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            axes=indices([2, 3]),
        ).output(0)
    ]


def build_reorg(site: Site) -> list[Tensor]:
    """YOLO's reordering of pixels into channels."""
    param = site.param("reorg_param")
    data = site.bottom(rank=4)
    stride = param.integer("stride")
    if param.flag("reverse", False):
        raise TextError("reverse: true is not supported")
    _, channels, height, width = shape_of(data)
    if not 1 <= stride <= MAX_KERNEL or height % stride or width % stride or channels % stride**2:
        raise TextError(f"stride {stride} does not divide the input {list(shape_of(data))}")
    return [ops.reorg_yolo(data, [stride]).output(0)]


def build_shuffle_channel(site: Site) -> list[Tensor]:
    """Channels in groups, transposed: the mixing step of ShuffleNet."""
    data = site.bottom(rank=4)
    group, channels = site.param("shuffle_channel_param").integer("group", 1), shape_of(data)[1]
    if group < 1 or channels % group:
        raise TextError(f"{group} groups do not divide {channels} channels")
    return [ops.shuffle_channels(data, 1, group).output(0)]


def _check_sizes(sizes: list[int]) -> None:
    if not all(1 <= size <= MAX_KERNEL for size in sizes):
        raise TextError(f"its size is {sizes}, wanted 1 to {MAX_KERNEL}")
