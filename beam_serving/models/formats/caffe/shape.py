"""Layers that move, cut, join or reduce axes. Axis 0 is the batch and stays what it is."""

import math
from itertools import pairwise

import numpy as np
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, axis_of, indices, reshape, scalar, shape_of
from beam_serving.models.formats.caffe.message import TextError


def build_concat(site: Site) -> list[Tensor]:
    param = site.param("concat_param")
    site.want_bottoms(1, 1 << 16)
    shapes = [shape_of(bottom) for bottom in site.bottoms]
    axis = axis_of(param.integer("concat_dim", param.integer("axis", 1)), len(shapes[0]))
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
        raise TextError(f"cannot join {[list(shape) for shape in shapes]} along axis {axis}")
    return [ops.concat(list(site.bottoms), axis).output(0)]


def build_slice(site: Site) -> list[Tensor]:
    """Cut at the slice points, or in equal parts."""
    param = site.param("slice_param")
    data = site.bottom()
    shape = shape_of(data)
    axis = axis_of(param.integer("slice_dim", param.integer("axis", 1)), len(shape))
    points = param.integers("slice_point")
    if not points and site.tops and shape[axis] % site.tops == 0:
        points = list(range(0, shape[axis], shape[axis] // site.tops))[1:]
    bounds = [0, *points, shape[axis]]
    lengths = [end - start for start, end in pairwise(bounds)]
    if len(lengths) != site.tops or min(lengths) < 1:
        raise TextError(f"cannot cut size {shape[axis]} at {points} into {site.tops} tops")
    return list(ops.variadic_split(data, np.int64(axis), indices(lengths)).outputs())


def build_flatten(site: Site) -> list[Tensor]:
    param = site.param("flatten_param")
    data = site.bottom()
    shape = shape_of(data)
    axis = axis_of(param.integer("axis", 1), len(shape))
    last = axis_of(param.integer("end_axis", -1), len(shape))
    if last < axis:
        raise TextError(f"end_axis {last} is before axis {axis}")
    return [reshape(data, [*shape[:axis], math.prod(shape[axis : last + 1]), *shape[last + 1 :]])]


def build_reshape(site: Site) -> list[Tensor]:
    """Replace `num_axes` axes from `axis` on by the wanted shape: 0 copies an axis, -1 is what is left."""
    param = site.param("reshape_param")
    data = site.bottom()
    shape = list(shape_of(data))
    wanted = param.message("shape").integers("dim")
    axis, count = param.integer("axis", 0), param.integer("num_axes", -1)
    start = axis + len(shape) + 1 if axis < 0 else axis
    end = len(shape) if count == -1 else start + count
    if not 0 <= start <= end <= len(shape):
        raise TextError(f"axis {axis} and num_axes {count} do not fit {len(shape)} dimensions")
    dims = [*shape[:start], *_copied(wanted, shape[start:]), *shape[end:]]
    if dims.count(-1) == 1:
        known = math.prod(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = math.prod(shape) // known if known > 0 else 0
    if any(dim < 1 for dim in dims):
        raise TextError(f"cannot reshape {shape} to {dims}")
    return [reshape(data, dims)]


def build_permute(site: Site) -> list[Tensor]:
    """Return all axes: the order may name the first ones only, the others follow as they are."""
    data = site.bottom()
    rank = len(shape_of(data))
    order = site.param("permute_param").integers("order")
    order += [axis for axis in range(rank) if axis not in order]
    if sorted(order) != list(range(rank)):
        raise TextError(f"order {order} does not name {rank} axes once each")
    return [ops.transpose(data, indices(order)).output(0)]


def build_crop(site: Site) -> list[Tensor]:
    """Cut the axes from `axis` on to the second bottom's size, at an offset for all or for each of them."""
    param = site.param("crop_param")
    site.want_bottoms(2, 2)
    data, reference = site.bottoms
    shape, wanted = shape_of(data), shape_of(reference)
    if len(shape) != len(wanted):
        raise TextError(f"its bottoms have the shapes {list(shape)} and {list(wanted)}")
    axes = list(range(axis_of(param.integer("axis", 2), len(shape)), len(shape)))
    offsets = param.integers("offset") or [0]
    if len(offsets) == 1:
        offsets = offsets * len(axes)
    if len(offsets) != len(axes):
        raise TextError(f"{len(offsets)} offsets for {len(axes)} axes")
    ends = [offset + wanted[axis] for offset, axis in zip(offsets, axes, strict=True)]
    if min(offsets) < 0 or any(end > shape[axis] for end, axis in zip(ends, axes, strict=True)):
        raise TextError(f"cannot cut {list(wanted)} out of {list(shape)} at {offsets}")
    return [ops.slice(data, indices(offsets), indices(ends), indices([1] * len(axes)), indices(axes)).output(0)]


def build_tile(site: Site) -> list[Tensor]:
    param = site.param("tile_param")
    data = site.bottom()
    rank = len(shape_of(data))
    axis, tiles = axis_of(param.integer("axis", 1), rank), param.integer("tiles")
    if not 1 <= tiles < 1 << 28:
        raise TextError(f"tiles is {tiles}, wanted at least 1")
    return [ops.tile(data, indices([tiles if index == axis else 1 for index in range(rank)])).output(0)]


def build_softmax(site: Site) -> list[Tensor]:
    param = site.param("softmax_param")
    param.ignore(("engine",))
    data = site.bottom()
    return [ops.softmax(data, axis_of(param.integer("axis", 1), len(shape_of(data)))).output(0)]


def build_arg_max(site: Site) -> list[Tensor]:
    """Return the positions of the largest values as floats; with `out_max_val` also, or instead, the values.

    Without an axis each example is one vector, and the result is (batch, 1 or 2, top_k) padded with ones to the rank
    of the input.
    """
    param = site.param("argmax_param")
    data = site.bottom()
    shape = shape_of(data)
    with_values, count, by_axis = param.flag("out_max_val", False), param.integer("top_k", 1), param.has("axis")
    axis = axis_of(param.integer("axis", 1), len(shape))
    if not by_axis:
        data = reshape(data, [shape[0], math.prod(shape[1:])])
    size = shape_of(data)[axis]
    if not 1 <= count <= size:
        raise TextError(f"top_k is {count} of {size} values")
    # Of equal values Caffe takes the last one first, OpenVINO the first one: hence backwards.
    backwards = ops.slice(data, indices([size - 1]), indices([-size - 1]), indices([-1]), indices([axis]))
    top = ops.topk(backwards, np.int64(count), axis, "max", "value", stable=True)
    values, positions = top.output(0), ops.subtract(scalar(size - 1), ops.convert(top.output(1), "f32")).output(0)
    if by_axis:
        return [values if with_values else positions]
    tail = [1] * (len(shape) - 3)
    parts = [positions, values] if with_values else [positions]
    return [ops.concat([reshape(part, [shape[0], 1, count, *tail]) for part in parts], 1).output(0)]


def build_reduction(site: Site) -> list[Tensor]:
    """Reduce all axes from `axis` on."""
    param = site.param("reduction_param")
    data = site.bottom()
    rank = len(shape_of(data))
    axes = indices(range(axis_of(param.integer("axis", 0), rank), rank))
    operation = param.choice("operation", "SUM")
    if operation == "ASUM":
        data = ops.abs(data)
    elif operation == "SUMSQ":
        data = ops.multiply(data, data)
    reduce = ops.reduce_mean if operation == "MEAN" else ops.reduce_sum
    return [ops.multiply(reduce(data, axes), scalar(param.real("coeff", 1.0))).output(0)]


def _copied(wanted: list[int], shape: list[int]) -> list[int]:
    """Replace zeros by the bottom's dimension at the same place."""
    if any(dim == 0 and index >= len(shape) for index, dim in enumerate(wanted)):
        raise TextError(f"shape {wanted} copies an axis that the input {shape} does not have")
    return [shape[index] if dim == 0 else dim for index, dim in enumerate(wanted)]
