"""What setup.py says, asked of setuptools."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_PROGRAM = (
    "import json, setuptools; setuptools.setup = lambda **given: print(json.dumps({k: given[k] for k in "
    "('install_requires', 'extras_require')})); exec(compile(open('setup.py').read(), 'setup.py', 'exec'), "
    "{'__file__': 'setup.py', '__name__': '__main__'})"
)


def declared() -> dict[str, Any]:
    """Return `install_requires` and `extras_require`."""
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ended.stdout))
