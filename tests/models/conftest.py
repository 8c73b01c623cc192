from pathlib import Path

import numpy as np
import pytest

DIGITS = Path(__file__).parent / "fixtures" / "digits"


@pytest.fixture
def digits() -> Path:
    """The directories of one small CNN in every format; input 3x32x32 (TensorFlow: 32x32x3), output 10 classes."""
    return DIGITS


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """16 inputs in both layouts (`input_nchw`, `input_nhwc`), the probabilities `prob` and the true `label`."""
    with np.load(DIGITS / "golden.npz") as arrays:
        return dict(arrays)
