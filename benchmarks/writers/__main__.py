"""`python -m benchmarks.writers FORMAT FOLDER`: in a process of its own, which takes its framework
along when it ends."""

import sys
from pathlib import Path

from benchmarks.mobilenet import mobilenet
from benchmarks.writers import write

write(mobilenet(), sys.argv[1], Path(sys.argv[2]))
