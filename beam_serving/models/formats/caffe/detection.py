"""PriorBox and DetectionOutput of SSD.

Source: the layers of the SSD branch of Caffe (Liu et al., 2016). Boxes are (xmin, ymin, xmax, ymax) in 0..1.
"""

import math

import numpy as np
import numpy.typing as npt
import openvino.opset13 as ops

from beam_serving.models.formats.caffe.layer_context import Site, Tensor, constant, indices, positive, shape_of
from beam_serving.models.formats.caffe.message import Message, TextError

MAX_PRIORS = 1 << 20
"""SSD512 has 24564."""


def build_prior_box(site: Site) -> list[Tensor]:
    """Boxes around every cell of a feature map, (1, 2, boxes * 4): the boxes and their variances.

    They depend on shapes only, so they are a constant of the graph.
    """
    param = site.param("prior_box_param")
    site.want_bottoms(2, 2)
    feature, image = (shape_of(bottom) for bottom in site.bottoms)
    if len(feature) != 4 or len(image) != 4:
        raise TextError(f"its bottoms have the shapes {list(feature)} and {list(image)}, wanted 4 dimensions")
    image_size = _pair(param, "img_size", "img_h", "img_w", (float(image[2]), float(image[3])))
    steps = _pair(param, "step", "step_h", "step_w", (image_size[0] / feature[2], image_size[1] / feature[3]))
    sizes = _box_sizes(param)
    if feature[2] * feature[3] * len(sizes) > MAX_PRIORS:
        raise TextError(f"{len(sizes)} boxes for each of {feature[2]} x {feature[3]} cells, the limit is {MAX_PRIORS}")
    offset = param.real("offset", 0.5)
    y, x = ((np.arange(size) + offset) * step for size, step in zip(feature[2:], steps, strict=True))
    center = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), axis=-1)
    half = np.array(sizes)[None, None] / 2
    boxes = np.concatenate([center - half, center + half], axis=-1) / np.tile(image_size[::-1], 2)
    if param.flag("clip", False):
        boxes = boxes.clip(0.0, 1.0)
    variances = np.broadcast_to(_variances(param), boxes.shape)
    return [constant(np.stack([boxes.ravel(), variances.ravel()])[None].astype(np.float32))]


def build_detection_output(site: Site) -> list[Tensor]:
    """Return the best boxes after non-maximum suppression: (batch, 1, keep_top_k, 7).

    A row is (0, class, score, xmin, ymin, xmax, ymax), or starts with -1 where an example has fewer boxes: what Caffe
    gives for a batch of one, so that an example's rows do not depend on the rest of its batch.
    """
    param = site.param("detection_output_param")
    param.ignore(("save_output_param", "visualize", "visualize_threshold", "save_file"))
    site.want_bottoms(3, 3)
    locations, scores, priors = site.bottoms
    boxes = shape_of(priors)[-1] // 4
    classes = param.integer("num_classes")
    positive("num_classes", [classes])
    if len(shape_of(locations)) != 2 or len(shape_of(scores)) != 2 or shape_of(scores)[1] != boxes * classes:
        shapes = [list(shape_of(bottom)) for bottom in site.bottoms]
        raise TextError(f"its bottoms have the shapes {shapes}, wanted {classes} scores for each of {boxes} boxes")
    node = ops.detection_output(locations, scores, priors, _detection_options(param, classes))
    return [_rows_by_example(node.output(0), locations)]


def _detection_options(param: Message, classes: int) -> dict[str, object]:
    suppression = param.message("nms_param")
    if suppression.real("eta", 1.0) != 1.0:
        raise TextError("eta in nms_param is not supported, wanted 1")
    top_k, keep_top_k = suppression.integer("top_k", -1), param.integer("keep_top_k", -1)
    if not 1 <= keep_top_k <= MAX_PRIORS:
        raise TextError(f"keep_top_k is {keep_top_k}, wanted 1 to {MAX_PRIORS}")
    background = param.integer("background_label_id", 0)
    if not -1 <= background < classes or not -1 <= top_k <= MAX_PRIORS:
        raise TextError(f"background_label_id is {background} and top_k {top_k}")
    return {
        "background_label_id": background,
        "top_k": top_k,
        "keep_top_k": [keep_top_k],
        "variance_encoded_in_target": param.flag("variance_encoded_in_target", False),
        "code_type": f"caffe.PriorBoxParameter.{param.choice('code_type', 'CORNER')}",
        "share_location": param.flag("share_location", True),
        "nms_threshold": suppression.real("nms_threshold", 0.3),
        "confidence_threshold": param.real("confidence_threshold", -3e38),
        "clip_before_nms": False,
        "clip_after_nms": param.flag("clip", False),
        "normalized": True,
    }


def _rows_by_example(detections: Tensor, locations: Tensor) -> Tensor:
    """Hand each example its own rows: OpenVINO packs those of the whole batch and ends them with a -1."""
    keep = shape_of(detections)[2] // shape_of(locations)[0]
    rows = ops.reshape(detections, indices([-1, 7]), special_zero=False)
    ids = ops.squeeze(ops.slice(rows, indices([0]), indices([1]), indices([1]), indices([1])), indices([1]))
    ended = ops.cum_sum(ops.convert(ops.equal(ids, constant([-1])), "i64"), np.int64(0))
    count = ops.gather(ops.shape_of(locations), np.int64(0), np.int64(0))
    examples = ops.range(np.int64(0), count, np.int64(1), "i64")
    own = ops.equal(ops.unsqueeze(ops.convert(examples, "f32"), np.int64(1)), ops.unsqueeze(ids, np.int64(0)))
    own = ops.logical_and(own, ops.equal(ops.unsqueeze(ended, np.int64(0)), np.int64(0)))
    lengths = ops.unsqueeze(ops.reduce_sum(ops.convert(own, "i64"), indices([1])), np.int64(1))
    starts = ops.cum_sum(lengths, np.int64(0), exclusive=True)
    slots = indices(range(keep))
    present = ops.less(slots, lengths)
    picked = ops.gather(rows, ops.select(present, ops.add(starts, slots), np.int64(0)), np.int64(0))
    picked = ops.multiply(picked, constant([0, 1, 1, 1, 1, 1, 1]))
    filled = ops.select(ops.unsqueeze(present, np.int64(2)), picked, constant([-1, 0, 0, 0, 0, 0, 0]))
    return ops.unsqueeze(filled, np.int64(1)).output(0)


def _box_sizes(param: Message) -> list[tuple[float, float]]:
    """(width, height) in pixels of the boxes of a cell."""
    least, most = param.reals("min_size"), param.reals("max_size")
    if not least or min(least) <= 0 or (most and len(most) != len(least)):
        raise TextError(f"min_size is {least} and max_size {most}")
    ratios = [1.0]
    flip = param.flag("flip", True)
    for ratio in param.reals("aspect_ratio"):
        if ratio <= 0:
            raise TextError(f"aspect_ratio is {ratio}, wanted above 0")
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1.0 / ratio] if flip else [ratio]
    if len(least) * (len(ratios) + 1) > MAX_PRIORS:
        raise TextError(f"{len(least)} sizes with {len(ratios)} aspect ratios")
    sizes = []
    for index, size in enumerate(least):
        sizes.append((size, size))
        if most:
            if most[index] <= size:
                raise TextError(f"max_size {most[index]} is not above min_size {size}")
            sizes.append((math.sqrt(size * most[index]),) * 2)
        sizes += [(size * math.sqrt(ratio), size / math.sqrt(ratio)) for ratio in ratios[1:]]
    return sizes


def _variances(param: Message) -> npt.NDArray[np.float64]:
    values = param.reals("variance") or [0.1]
    if len(values) not in (1, 4) or min(values) <= 0:
        raise TextError(f"variance is {values}, wanted 1 or 4 numbers above 0")
    return np.array(values if len(values) == 4 else values * 4)


def _pair(param: Message, both: str, height: str, width: str, default: tuple[float, float]) -> tuple[float, float]:
    """Return a number for both axes, or one each, or the default; 0 stands for not given."""
    one = param.real(both, 0.0)
    pair = (one, one) if one else (param.real(height, 0.0) or default[0], param.real(width, 0.0) or default[1])
    if min(pair) <= 0:
        raise TextError(f"'{both}' is {pair}, wanted above 0")
    return pair
