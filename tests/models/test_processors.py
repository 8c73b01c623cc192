"""What holds, holds on the processors that users have: oneDNN and OpenVINO are kept to older kinds of instructions.

Each kind runs the tests of formats and rows in a process of its own, since engines look at the processor once. Results
may differ in the last bits from kind to kind, as sums are cut differently; the tolerance of the tests, 1e-5 of
probabilities, is a hundred times that.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
TESTS = ("tests/models/test_formats.py", "tests/models/test_rows.py", "tests/models/test_cases.py")
KINDS = ("SSE41", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_AMX")


@pytest.mark.parametrize("onednn", ["0", "1"])
@pytest.mark.parametrize("kind", KINDS)
def test_formats_and_rows_are_right_on_an_older_processor(kind: str, onednn: str, tmp_path: Path) -> None:
    limits = {"ONEDNN_MAX_CPU_ISA": kind, "DNNL_MAX_CPU_ISA": kind, "TF_ENABLE_ONEDNN_OPTS": onednn}
    environment = {**os.environ, **limits, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
