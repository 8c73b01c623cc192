"""`python -m beam_serving.cli.commands.bench.writers FORMAT FOLDER`: in a process of its own, which takes its framework
along when it ends."""

import sys
from pathlib import Path

from beam_serving.cli.commands.bench.mobilenet import mobilenet
from beam_serving.cli.commands.bench.writers import write

write(mobilenet(), sys.argv[1], Path(sys.argv[2]))
