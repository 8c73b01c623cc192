"""PriorBox and DetectionOutput agree with OpenCV, example by example."""

from pathlib import Path

import numpy as np
import pytest
from caffe_files import TOLERANCE, encode_caffemodel, input_text, layer_text, random, run_opencv, run_ours, write_model

PRIORS = {
    "one_size": (1, "min_size: 10 variance: 0.1 clip: false"),
    "two_sizes": (2, "min_size: 10 max_size: 20 variance: 0.2 clip: false"),
    "ratios": (6, "min_size: 10 max_size: 20 aspect_ratio: 2 aspect_ratio: 3 variance: 0.1 clip: false"),
    "no_flip": (2, "min_size: 10 aspect_ratio: 2 flip: false clip: true variance: 0.1"),
    "variances": (1, "min_size: 10 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 clip: false"),
    "step": (2, "min_size: 10 max_size: 15 step: 8 offset: 0.25 variance: 0.1 clip: false"),
    "same_ratio_twice": (3, "min_size: 10 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 2 variance: 0.1 clip: false"),
}
"""Boxes of a cell, and the parameters; OpenCV has no default variance, and clips where SSD by default does not."""


def ssd(prior: str) -> str:
    """Two feature maps, of 3 x 4 and 2 x 3 cells, with their priors."""
    text = input_text("image", (1, 3, 48, 64))
    pool = "pooling_param {{ pool: AVE kernel_size: {0} stride: {0} }}"
    text += layer_text("f1", "Pooling", "image", more=pool.format(16)) + layer_text(
        "f2", "Pooling", "image", more=pool.format(24)
    )
    for name in ("f1", "f2"):
        text += layer_text(f"p{name}", "PriorBox", f"{name} image", more=f"prior_box_param {{ {prior} }}")
    text += layer_text("priors", "Concat", "pf1 pf2", more="concat_param { axis: 2 }")
    return text


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("code", ["CENTER_SIZE", "CORNER"])
def test_detections_agree_with_opencv(tmp_path: Path, prior: tuple[int, str], code: str) -> None:
    per_cell, prior_param = prior
    boxes = (12 + 6) * per_cell
    more = (
        "detection_output_param { num_classes: 3 share_location: true background_label_id: 0 keep_top_k: 20 "
        f"confidence_threshold: 0.3 code_type: {code} nms_param {{ nms_threshold: 0.45 top_k: 50 }} }}"
    )
    text = ssd(prior_param) + input_text("loc", (1, boxes * 4)) + input_text("scores", (1, boxes, 3))
    text += layer_text("soft", "Softmax", "scores", more="softmax_param { axis: 2 }") + layer_text(
        "conf", "Flatten", "soft"
    )
    text += layer_text("out", "DetectionOutput", "loc conf priors", more=more)
    paths = write_model(tmp_path, text, encode_caffemodel({"out": []}))
    batch = 3
    inputs = {
        "image": random(batch, 3, 48, 64),
        "loc": random(batch, boxes * 4),
        "scores": random(batch, boxes, 3, low=-2, high=2),
    }

    ours = run_ours(paths, inputs)["out"]

    assert ours.shape == (batch, 1, 20, 7)
    for example in range(batch):
        one = {name: array[example : example + 1] for name, array in inputs.items()}
        theirs = run_opencv(paths, one)["out"].reshape(-1, 7)
        theirs = theirs[theirs[:, 2] > 0]  # OpenCV fills the rest with zeros
        found = ours[example, 0][ours[example, 0, :, 0] == 0]
        assert len(found) == len(theirs) > 0
        order, their_order = (np.lexsort(rows.round(4).T) for rows in (found, theirs))
        np.testing.assert_allclose(found[order], theirs[their_order], rtol=TOLERANCE, atol=TOLERANCE)
        assert (ours[example, 0, len(found) :, 0] == -1).all()
