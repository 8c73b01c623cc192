"""The client's part of the README runs as it stands, against a stand-in that answers as the service does."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from beam_serving.records import Answer, Image, Payload, TopClasses
from tests.client.conftest import StandIn
from tests.client.test_event_loops import Answering
from tests.test_docs import ROOT, indented_blocks, is_python


def answer(payload: Payload) -> Answer:
    """What a model of images, and one of tensors, would say."""
    if any(isinstance(value, Image) for value in payload.inputs.values()) and len(payload.inputs) == 1:
        labels = tuple("tabby" if index == 281 else f"class {index}" for index in range(1000))
        return Answer({"p": TopClasses(np.array([281, 282]), np.array([0.83, 0.09]))}, labels)
    return Answer({"probabilities": np.array([1.0, 0.0], np.float32)})


def test_the_blocks_of_the_clients_run_in_order(port: int, service: StandIn, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = tmp_path / "clients.md"
    section.write_text(text[text.index("### Clients") : text.index("### Results as files")], encoding="utf-8")
    blocks = [block for block in indented_blocks(section) if is_python(block)]
    assert len(blocks) >= 2
    cv2.imwrite(str(tmp_path / "cat.jpg"), np.zeros((8, 8, 3), np.uint8))
    program = "\n".join(blocks).replace('"localhost"', f'"127.0.0.1:{port}"')
    with Answering(service, answer):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    said = re.findall(r"print\(.*# (.*)$", "\n".join(blocks), re.MULTILINE)
    assert (
        [printed[0], printed[1], printed[-1]]
        == [said[0], said[1], said[-1]]
        == [
            "{281: 0.83, 282: 0.09}",
            "281 0.83 tabby",
            "281",
        ]
    )
    assert [line.split(" ")[0] for line in printed[3:6]] == ["a", "b", "c"]
