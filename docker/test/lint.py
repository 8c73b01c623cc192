"""What can be said of the files without building anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCKER = Path(__file__).parents[1]


def lint() -> bool:
    """Check the Dockerfile, the compose file and the scripts; say whether all are in order."""
    tools = Path(sys.executable).parent
    compose = ["--builtin-schema", "vendor.compose-spec", str(DOCKER / "docker-compose.yml")]
    checks = [
        [str(tools / "hadolint"), str(DOCKER / "Dockerfile")],
        [str(tools / "check-jsonschema"), *compose],
        [str(tools / "shellcheck"), *map(str, sorted(DOCKER.glob("*.sh")))],
    ]
    passed = True
    for check in checks:
        code = subprocess.run(check, check=False).returncode
        print(f"{Path(check[0]).name}: {'ok' if code == 0 else 'failed'}", flush=True)
        passed = passed and code == 0
    return passed
