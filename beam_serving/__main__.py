"""`python -m beam_serving`."""

import sys

from beam_serving.cli import main

sys.exit(main())
