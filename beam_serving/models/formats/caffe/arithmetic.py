"""Layers that combine blobs with one another or with learned factors: Eltwise, Scale, Bias, Axpy."""

from functools import reduce

import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, along, axis_of, indices, scalar, shape_of
from beam_serving.models.formats.caffe.message import TextError


def build_eltwise(site: Site) -> list[Tensor]:
    param = site.param("eltwise_param")
    param.ignore(("stable_prod_grad",))
    site.want_bottoms(2, 1 << 16)
    shapes = [shape_of(bottom) for bottom in site.bottoms]
    if len(set(shapes)) > 1:
        raise TextError(f"its bottoms have the shapes {[list(shape) for shape in shapes]}, wanted the same one")
    operation = param.choice("operation", "SUM")
    factors = param.reals("coeff")
    if factors and (operation != "SUM" or len(factors) != len(site.bottoms)):
        raise TextError(f"{len(factors)} coeff for {operation} of {len(site.bottoms)} bottoms")
    terms = list(site.bottoms)
    if any(factor != 1.0 for factor in factors):
        terms = [ops.multiply(term, scalar(f)).output(0) for term, f in zip(terms, factors, strict=True)]
    combine = {"PROD": ops.multiply, "SUM": ops.add, "MAX": ops.maximum}[operation]
    return [reduce(lambda left, right: combine(left, right).output(0), terms)]


def build_scale(site: Site) -> list[Tensor]:
    """Multiply by a learned factor or by the second bottom, then add the learned bias if it has one."""
    param = site.param("scale_param")
    param.ignore(("filler", "bias_filler"))
    factor, shape, axis = _operand(site, "scale_param", "scale")
    product = ops.multiply(site.bottoms[0], factor).output(0)
    learned = len(site.bottoms) == 1
    has_bias = param.flag("bias_term", False)
    site.want_blobs(int(learned) + int(has_bias))
    if not has_bias:
        return [product]
    bias = site.blob(int(learned), shape, "bias")
    return [ops.add(product, along(bias, axis, len(shape_of(product)))).output(0)]


def build_bias(site: Site) -> list[Tensor]:
    site.param("bias_param").ignore(("filler",))
    addend, _, _ = _operand(site, "bias_param", "bias")
    site.want_blobs(2 - len(site.bottoms))
    return [ops.add(site.bottoms[0], addend).output(0)]


def build_axpy(site: Site) -> list[Tensor]:
    """Return a * x + y with a factor per example and channel: the excitation of SE-ResNet."""
    site.want_bottoms(3, 3)
    factor, x, y = site.bottoms
    rank = len(shape_of(x))
    if shape_of(x) != shape_of(y) or shape_of(factor)[:2] != shape_of(x)[:2] or rank != 4:
        raise TextError(f"its bottoms have the shapes {[list(shape_of(bottom)) for bottom in site.bottoms]}")
    if len(shape_of(factor)) == 2:
        factor = ops.unsqueeze(factor, indices([2, 3])).output(0)
    if shape_of(factor)[2:] != (1, 1):
        raise TextError(f"its factor has the shape {list(shape_of(factor))}, wanted one value a channel")
    return [ops.add(ops.multiply(factor, x), y).output(0)]


def _operand(site: Site, name: str, what: str) -> tuple[Tensor, list[int], int]:
    """Return the second operand spread over the first bottom, its own shape, and the axis where that stands."""
    site.want_bottoms(1, 2)
    param = site.param(name)
    shape = shape_of(site.bottoms[0])
    axis = axis_of(param.integer("axis", 1), len(shape), least=0)
    if len(site.bottoms) == 1:
        count = param.integer("num_axes", 1)
        if not -1 <= count <= len(shape) - axis:
            raise TextError(f"num_axes is {count} for {len(shape)} dimensions from axis {axis}")
        own = list(shape[axis:] if count == -1 else shape[axis : axis + count])
        return along(site.blob(0, own, what), axis, len(shape)), own, axis
    param.ignore(("num_axes",))
    own = list(shape_of(site.bottoms[1]))
    if own != list(shape[axis : axis + len(own)]):
        raise TextError(f"its second bottom {own} is not the part from axis {axis} of {list(shape)}")
    missing = [*range(axis), *range(axis + len(own), len(shape))]
    spread = ops.unsqueeze(site.bottoms[1], indices(missing)).output(0) if missing else site.bottoms[1]
    return spread, own, axis
