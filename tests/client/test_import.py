"""What the client costs those who import it."""

import subprocess
import sys


def test_the_client_imports_neither_beam_nor_a_model_framework_nor_opencv() -> None:
    heavy = ["apache_beam", "openvino", "torch", "tensorflow", "onnxruntime", "cv2"]
    program = f"import sys, beam_serving.client; print(sorted(set({heavy}) & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed == "[]\n"
