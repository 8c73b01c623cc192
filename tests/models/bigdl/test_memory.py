"""Reading a large BigDL file takes no memory beyond the file and its weights."""

import struct
import subprocess
import sys
from pathlib import Path

from tests.models.bigdl.bigdl_files import block, integer, module, number, varint

SIDE = 3000
_READ = """
import sys
from pathlib import Path
from beam_serving.models.formats.bigdl import read_bigdl

def peak():
    # Not ru_maxrss, which begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

read_bigdl(Path(sys.argv[1]), None, (4,))
before = peak()
model = read_bigdl(Path(sys.argv[2]), None, (int(sys.argv[3]),))
print(peak() - before, model.output(0).partial_shape)
"""


def linear(side: int) -> bytes:
    """A file of one Linear without bias, `side` squared weights of 0.5, its data inside the tensor as in 0.5."""
    values = struct.pack("<f", 0.5) * side**2
    storage = number(1, 2) + block(2, values) + number(9, 7)
    weight = number(1, 2) + block(2, varint(side) * 2) + block(3, varint(side) + varint(1)) + number(4, 1)
    weight += block(8, storage)
    attrs = {"inputSize": integer(side), "outputSize": integer(side), "withBias": number(1, 5) + number(8, 0)}
    return module("Linear", "fc", attrs=attrs, more=block(3, weight))


def test_a_large_file_is_read_with_one_copy_of_its_weights(tmp_path: Path) -> None:
    small, large = tmp_path / "small.model", tmp_path / "large.model"
    small.write_bytes(linear(4))
    large.write_bytes(linear(SIDE))
    said = subprocess.run(
        [sys.executable, "-c", _READ, str(small), str(large), str(SIDE)], capture_output=True, text=True, check=True
    ).stdout
    grown_bytes, shape = said.split(maxsplit=1)
    assert shape.strip() == f"[?,{SIDE}]"
    # Twice the file, and pages of the allocator; a second copy of the weights would be three times the file.
    assert int(grown_bytes) < 2.5 * large.stat().st_size, f"{grown_bytes} bytes for a file of {large.stat().st_size}"
